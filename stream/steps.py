"""What there is to do to a frame, one step for each stage of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from engines.base import Frames
from nem.explanation import Explanation
from stream.frame import Frame
from stream.stats import StageTimer

Decoded: TypeAlias = tuple[Frame, Frames]
"""A frame and its small picture for the engine."""
Item: TypeAlias = tuple[Frame, Explanation]


class Steps(NamedTuple):
    """The steps of a pipeline; each takes the frames in their order.

    Attributes:
        decode: gives the next frame, None at the end.
        infer: explains some frames at once.
        draw: draws one; None where nothing is drawn.
        write: writes one; None where frames are handed to the caller.
        timers: of the stages "decode", "infer", "overlay" and "encode".
    """

    decode: Callable[[], Decoded | None]
    infer: Callable[[list[Decoded]], list[Item]]
    draw: Callable[[Item], Item] | None
    write: Callable[[Item], None] | None
    timers: Mapping[str, StageTimer]

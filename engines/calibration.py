"""Pictures that a quantised engine is calibrated with: found, told apart, read evenly.

What is found and its hash need no torch, as they are asked for whenever such an engine is opened;
only a build reads the pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engines.errors import OptionError
from nem.pictures import files_below, is_media, is_video

COUNT = 500
"""Pictures to calibrate with; more change the ranges of activations hardly."""

HELD_OUT = 16
"""Pictures that are kept from the calibration, to check the engine by."""

FEWEST = 8
"""With fewer pictures nothing is calibrated: the ranges would be those of single pictures."""

SEED = 0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Pictures of one calibration.

    Attributes:
        frames: to calibrate with, RGB uint8 (N, S, S, 3), S the model's input side.
        held_out: others, to check by, RGB uint8 (M, S, S, 3).
    """

    frames: NDArray[np.uint8]
    held_out: NDArray[np.uint8]


def check_given(precision: str, quantised: Sequence[str], calibration: object | None) -> None:
    """Refuse pictures without use for them, and the other way round.

    Args:
        precision: any.
        quantised: precisions of the engine that are calibrated.
        calibration: where pictures are, or pictures; None where none are given.

    Raises:
        OptionError: they don't go together; says what to do.
    """
    if precision not in quantised and calibration is not None:
        raise OptionError(
            f"calibration pictures go with precision {' or '.join(quantised)}, asked for is "
            f"{precision}; leave them out"
        )
    if precision in quantised and calibration is None:
        raise OptionError(
            f"precision {precision} needs pictures to calibrate with, none are given: some {COUNT} "
            "of what will be looked at are best (--calibrate PATH: an image, a video or a folder)"
        )


def find_files(path: Path) -> list[Path]:
    """Images and videos below a path, in a fixed order; of very many an even choice.

    Raises:
        OptionError: there is nothing of that kind.
    """
    cure = "give images, videos, or a folder of them"
    if not path.exists():
        raise OptionError(f"calibration {path}: no such file or folder; {cure}")
    given = [path] if path.is_file() and is_media(path) else []
    files = files_below(path, is_media) if path.is_dir() else given
    if not files:
        raise OptionError(f"calibration {path}: neither an image nor a video; {cure}")
    return spread(files, COUNT + HELD_OUT)


def hash_files(path: Path) -> str:
    """SHA-256 of the content of `find_files`, in its order.

    Raises:
        OptionError: there is nothing to read, or it can't be read.
    """
    digest = hashlib.sha256()
    for file in find_files(path):
        try:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        except OSError as error:
            raise OptionError(f"calibration {file}: can't be read: {error.strerror}") from None
    return digest.hexdigest()


def read_pictures(path: Path, size: int, say: Callable[[str], None] | None = None) -> Pictures:
    """Read pictures evenly over all files; the same ones each time. Needs torch.

    Args:
        path: an image, a video, or a folder of them.
        size: side S of the model's input; pictures are resized as an engine's frames are.
        say: told in a line where there are few pictures, or some can't be read.

    Raises:
        OptionError: nothing usable, or fewer than `FEWEST` pictures.
    """
    from nem.data import collect
    from nem.errors import DataError

    tell, files, wanted = say or (lambda _: None), find_files(path), COUNT + HELD_OUT
    in_videos = sum(_count_frames(file) for file in files if is_video(file))
    try:
        found = collect(files, size, every=max(1, in_videos // wanted))
        chosen = [found.pixels(index) for index in spread(range(len(found)), wanted)]
    except DataError as error:
        raise OptionError(f"calibration {path}: {error}") from error
    if len(chosen) < FEWEST:
        raise OptionError(
            f"calibration {path}: {len(chosen)} pictures, at least {FEWEST} are needed and some "
            f"{COUNT} of what will be looked at are best; give more"
        )
    if found.skipped:
        tell(f"calibration {path}: {len(found.skipped)} files can't be read and are left out")
    if len(chosen) < COUNT // 5:
        tell(f"calibration {path}: only {len(chosen)} pictures; some {COUNT} are best")
    kept = set(spread(range(len(chosen)), min(HELD_OUT, len(chosen) // 4)))
    return Pictures(
        np.stack([picture for index, picture in enumerate(chosen) if index not in kept]),
        np.stack([chosen[index] for index in sorted(kept)]),
    )


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items in their order, one of each of as many equal parts; all of fewer."""
    if len(items) <= count:
        return list(items)
    random = np.random.default_rng(SEED)
    edges = np.linspace(0, len(items), count + 1).astype(int)
    return [items[index] for index in random.integers(edges[:-1], edges[1:])]


def _count_frames(path: Path) -> int:
    """Frames of a video as its head tells, 0 where it tells nothing: memory alone hangs on it."""
    import av

    from nem.videos import open_video

    try:
        with open_video(path) as container:
            stream = container.streams.video[0]
            if stream.frames:
                return stream.frames
            seconds = float((container.duration or 0) / av.time_base)
            return int(seconds * float(stream.average_rate or 0))
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return 0

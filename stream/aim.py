"""What is explained, turned while frames run: the next frame is explained by the new aim."""

from __future__ import annotations

import numpy as np

from engines import Engine, find_class, pick_aim
from nem.explanation import AIM_OF, Aim, Explanation

CANDIDATES = 5
"""Classes of the shown frame that `next_target` goes through."""


class AimDial:
    """The aim of the moment; safe from two threads, a turn sets one attribute.

    Args:
        engine: what can be explained.
        explain: aim to begin with; None is the engine's default, or `target` with a target.
        target: class to begin with, by name or number; None is each frame's most probable one.

    Attributes:
        asked: aim, and number of the class or None, for `engines.Engine.run`.

    Raises:
        OptionError: no such aim or class here.
    """

    def __init__(
        self, engine: Engine, explain: str | None = None, target: int | str | None = None
    ) -> None:
        aim = pick_aim(engine.aims, explain, target, opened=True)
        self._aims, self._names = engine.aims, engine.names
        number = -1 if target is None else find_class(engine.names, target)
        self.asked: tuple[Aim, int | None] = (aim, None if number < 0 else number)

    def __str__(self) -> str:
        """What is explained now, as "embedding" or "target dog"."""
        aim, number = self.asked
        return aim if number is None else f"{aim} {self._names[number]}"

    def next_aim(self) -> str:
        """Go to the next aim, `target` with the most probable class; tells it in words."""
        if len(self._aims) == 1:
            return f"this bundle explains {self._aims[0]} only"
        at = self._aims.index(self.asked[0])
        self.asked = (self._aims[(at + 1) % len(self._aims)], None)
        return f"explains {self}"

    def next_target(self, shown: Explanation) -> str:
        """Explain the most probable class of `shown`; again, the next of its best five.

        Tells it in words, also why nothing changed.
        """
        if "target" not in self._aims or shown.scores is None:
            return "this bundle explains no other class"
        # By number: two classes may have one name.
        best = np.argsort(-shown.scores[0], kind="stable")[:CANDIDATES].tolist()
        aim, now = self.asked
        at = best.index(now) + 1 if aim == "target" and now is not None and now in best else 0
        self.asked = ("target", best[at % len(best)])
        return str(self)


def aim_of(explanation: Explanation) -> Aim | None:
    """The aim whose head gave the explanation; None for other methods."""
    return AIM_OF.get(explanation.method)


def in_words(explanation: Explanation) -> str:
    """What is explained: "class: cat", "target: dog"; "" for the embedding as a whole."""
    aim = aim_of(explanation)
    if aim in (None, "embedding") or explanation.target is None:
        return ""
    return f"{aim}: {explanation.names[int(explanation.target[0])]}"

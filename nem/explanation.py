"""The result object of every method, fast or slow. numpy only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nem.errors import BundleError

Aim = Literal["embedding", "class", "ranking", "target"]
"""What a trained head explains: the features; the decided class; the decided class by rank of
pixels; any class that is asked for."""
AIMS: tuple[Aim, ...] = get_args(Aim)

METHOD_OF: dict[Aim, str] = {
    "embedding": "nem-u",
    "class": "nemt",
    "ranking": "ra-nem",
    "target": "nemt-target",
}
"""The method that trains the head of each aim."""
AIM_OF: dict[str, Aim] = {method: aim for aim, method in METHOD_OF.items()}


def class_names(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The names of `count` scores: those given, or numbers where a model's classes have none.

    Raises:
        BundleError: names for another number of classes.
    """
    if names and len(names) != count:
        raise BundleError(
            f"{len(names)} class names for {count} classes: the manifest is that of another model; "
            "get the bundle again"
        )
    return names if names or not count else tuple(f"class {i}" for i in range(count))


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What a model looked at, for a batch of N pictures.

    Attributes:
        mask: float32 in [0, 1], (N, S, S), S the model's input side; 1 = important. Methods with
            unbounded maps give the positive part, stretched per picture; a ranking gives each
            pixel's percentile.
        scores: float32 class probabilities, (N, C), or None for a model without classes.
        embedding: float32 (N, D), the features before the classifier.
        names: the C class names, empty without scores.
        seconds: wall time, preprocessing included.
        method: what explained, as "nem-u" or "relax".
        target: the explained class of each picture, (N,) int64; None where no class is explained.
        raw: the map before scaling, (N, S, S), negative where the method has signs; None where
            the mask is the map.
        uncertainty: (N, S, S), for methods that estimate one (RELAX).
        forwards: runs of the backbone per picture.
        backwards: gradients through the backbone per picture.
    """

    mask: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    embedding: NDArray[np.float32]
    names: tuple[str, ...]
    seconds: float
    method: str = "nem-u"
    target: NDArray[np.int64] | None = None
    raw: NDArray[np.float32] | None = None
    uncertainty: NDArray[np.float32] | None = None
    forwards: int = 1
    backwards: int = 0

    def __repr__(self) -> str:
        classes = 0 if self.scores is None else self.scores.shape[1]
        return (
            f"Explanation({self.method}, mask={self.mask.shape}, classes={classes}, "
            f"embedding={self.embedding.shape}, seconds={self.seconds:.4f})"
        )

    def split(self) -> list[Explanation]:
        """One explanation for each picture (N = 1), with views of these arrays."""
        count = len(self.mask)

        def at(values: NDArray[Any] | None, index: int) -> Any:
            return None if values is None else values[index : index + 1]

        return [
            replace(
                self,
                mask=at(self.mask, i),
                scores=at(self.scores, i),
                embedding=at(self.embedding, i),
                seconds=self.seconds / count,
                target=at(self.target, i),
                raw=at(self.raw, i),
                uncertainty=at(self.uncertainty, i),
            )
            for i in range(count)
        ]

    def top(self, k: int = 3, index: int = 0) -> list[tuple[str, float]]:
        """The `k` most probable classes of picture `index`, best first; empty without classes."""
        if self.scores is None:
            return []
        row = self.scores[index]
        best = np.argsort(-row, kind="stable")[: max(k, 0)]
        return [(self.names[i], float(row[i])) for i in best]

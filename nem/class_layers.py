"""What a decoder is told of classes: rows of the classifier, layers on them, and their tables."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

NEVER = -1e4
"""A logit of probability 0, also in 16 bits."""


class Classes(NamedTuple):
    """What a decoder is told of the classes of N pictures.

    Attributes:
        rows: the classifier's row of each class (C, D), see `nem.backbone.Backbone.class_rows`.
        logits: of each picture (N, C).
        decided: the most probable class, int64 (N,).
        asked: the class that the target head explains, int64 (N,); None: the decided one.
    """

    rows: Tensor
    logits: Tensor
    decided: Tensor
    asked: Tensor | None = None

    @property
    def explained(self) -> Tensor:
        """What the target head explains."""
        return self.decided if self.asked is None else self.asked

    @property
    def probability(self) -> Tensor:
        """Of the decided class, float32 (N,).

        The largest of a softmax, written out: TensorRT-RTX 1.4 on an H200 gave 0.49 for 0.74 where
        the same softmax was an output, too.
        """
        logits = self.logits.float()
        return 1 / (logits - logits.amax(1, keepdim=True)).exp().sum(1)

    @property
    def lead(self) -> Tensor:
        """What tells the decided class from its rivals, (N, D): its row less their mean row.

        Rivals count by probability, so up to the rows' lengths this is the gradient of the decided
        class's log-odds by the embedding. They share out 1 among themselves, without the decided
        class: less nothing is lost to rounding where that is almost certain.
        """
        own = torch.arange(len(self.rows), device=self.rows.device) == self.decided[:, None]
        rivals = torch.where(own, NEVER, self.logits.float()).softmax(1).to(self.rows.dtype)
        return self.rows[self.decided] - rivals @ self.rows


class ClassLinear(nn.Linear):
    """A linear layer whose input is the row of each picture's class.

    Args:
        dims: length D of a row.
        outputs: K.
        gain: factor of the output. Optimisers like Adam move every weight alike, so a small one
            makes the layer learn slowly beside others.
    """

    def __init__(self, dims: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__(dims, outputs)
        self.gain = gain

    def forward(self, rows: Tensor, classes: Tensor | None = None) -> Tensor:
        """Outputs (N, K).

        Args:
            rows: of all classes (C, D), see `nem.backbone.Backbone.class_rows`.
            classes: of each picture, int64 (N,).
        """
        assert classes is not None
        found = super().forward(rows[classes])
        return found if self.gain == 1 else self.gain * found


class ClassTable(nn.Module):
    """What a `ClassLinear` gives for each class, looked up: for use, where rows don't change.

    Args:
        layer: what it stands for.
        rows: of all classes (C, D).
    """

    table: Tensor

    def __init__(self, layer: ClassLinear, rows: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            every = torch.arange(len(rows), device=rows.device)
            self.register_buffer("table", layer(rows, every))

    def forward(self, rows: Tensor, classes: Tensor) -> Tensor:
        """See `ClassLinear.forward`; the rows are not looked at."""
        return self.table[classes]


def tabulate_(module: nn.Module, rows: Tensor) -> None:
    """Replace each `ClassLinear` below `module` by its table, if that is the smaller one.

    A small model spends more on starting such products than on them.
    """
    if rows.shape[0] > rows.shape[1]:
        return
    for name, child in list(module.named_children()):
        if isinstance(child, ClassLinear):
            setattr(module, name, ClassTable(child, rows))
        else:
            tabulate_(child, rows)

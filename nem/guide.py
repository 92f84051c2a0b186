"""Tells the trunk of a decoder which class was decided."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nem.class_layers import ClassLinear

GAIN = 0.125
"""How quickly the guide learns beside the trunk. At 1 it took over before the trunk had learnt to
see: on toy pictures the masks of four heads had half as much of their mass on the object."""


class ClassGuide(nn.Module):
    """Scales and shifts features by the classifier's row of a class (FiLM, Perez et al. 2018).

    For a linear classifier after mean pooling, the coarsest map weighted by the row is the evidence
    for the class at each place (CAM). Without the row a decoder has to guess from the features
    which of them the decision rests on. Made to change nothing at first.

    Args:
        dims: length D of a row.
        coarse: channels of the coarsest map, which are scaled.
        width: channels of the trunk, scaled and shifted.
        levels: levels of the trunk.
    """

    def __init__(self, dims: int, coarse: int, width: int, levels: int) -> None:
        super().__init__()
        self.sizes = [coarse, *[width] * (2 * levels)]
        self.steer = ClassLinear(dims, sum(self.sizes), GAIN)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(
        self, rows: Tensor, decided: Tensor
    ) -> tuple[Tensor, Sequence[tuple[Tensor, Tensor]]]:
        """What the decided classes ask for.

        Args:
            rows: of all classes (C, D), see `nem.backbone.Backbone.class_rows`.
            decided: the class of each picture, int64 (N,).

        Returns:
            Factor of the coarsest map (N, coarse, 1, 1), and for each level, in order of the
            trunk's work, factor and shift (N, width, 1, 1).
        """
        coarse, *steps = self.steer(rows, decided)[..., None, None].split(self.sizes, 1)
        factors, shifts = steps[::2], steps[1::2]
        return 1 + coarse, [(1 + f, s) for f, s in zip(factors, shifts, strict=True)]

"""The head that explains any class, one that was never its training target included.

What tells it the class is the frozen classifier's own row w_c, not an index: two classes that the
model treats alike are explained alike, and a class added to the classifier needs no new decoder
(the future work of NEMt; conditioning as in FiLM, Perez et al. 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nem.class_layers import Classes, ClassLinear
from nem.layers import conv_block

HIDDEN = 16


class TargetHead(nn.Module):
    """Draws the evidence for one class.

    The row scales and shifts the trunk's features, and becomes a 1x1 filter of the backbone's
    coarsest map: for a linear classifier after mean pooling that is a learned class activation
    map, which says where at full width of the map, not only through the trunk's few channels.

    Args:
        width: channels of the trunk's features.
        channels: channels of the coarsest map.
        dims: length D of a classifier row.
    """

    def __init__(self, width: int, channels: int, dims: int) -> None:
        super().__init__()
        self.filter = ClassLinear(dims, channels, 1 / channels)
        self.modulate = ClassLinear(dims, 2 * width)
        self.draw = nn.Sequential(*conv_block(width + 1, HIDDEN, nn.ReLU), nn.Conv2d(HIDDEN, 1, 1))

    def forward(self, features: Tensor, evidence: Tensor, classes: Classes) -> Tensor:
        """Logits (N, 1, h, w).

        Args:
            features: of the trunk, (N, width, h, w).
            evidence: the coarsest map weighted by `filter`, enlarged to (N, 1, h, w).
            classes: of each picture.
        """
        scale, shift = self.modulate(classes.rows, classes.explained)[..., None, None].chunk(2, 1)
        logits: Tensor = self.draw(torch.cat([features * (1 + scale) + shift, evidence], 1))
        return logits

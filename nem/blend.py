"""What a ranking is completed by: where the decided class leads its rivals, and the other heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDE = 4.0
"""Logits of a ranking are divided by this before the sigmoid: trained ones spread by some 7."""

STEEP = 1.7
"""Of the sigmoid on standardised evidence, which makes it about uniform in [0, 1]."""

GAIN = 10.0
"""Of the sum, against the Gumbel noise of Ra-NEM's training, whose deviation is 1.3."""

LEAD, OTHER = 2.0, 0.8
"""First weights of the evidence and of each other head, that of the ranking's own map being 1.
Chosen on 200 validation pictures of the default; of its figure a third of them more or less
changes no more than 0.003."""

SURE, TRUST = 0.7, 3
"""What was drawn counts in full from this probability of the decided class on, and below by this
power of their ratio. On pictures of an unsure model, random masks (RISE) agree with the evidence,
and hardly with what the heads draw, which mostly learn from sure ones. Chosen on 256 validation
pictures with a probability below 0.7, outside of those that figures are told of."""


class Blend(nn.Module):
    """Adds to a ranking's own map, in learnt proportions, what else is known of the decided class.

    * The evidence: for a linear classifier after mean pooling, the coarsest map weighted by
      `Classes.lead` is Grad-CAM of the class's log-odds. A trunk of few channels can't work it out:
      it would have to multiply that map by a row that depends on all logits.
    * The maps of the other heads that explain the same decision.

    They err in different pictures, so the sum of their places in the order ranks better than each.
    What was drawn, the ranking's own map and the others', counts less where the class is not
    probable (`SURE`).

    Args:
        dims: length D of a classifier row.
        channels: of the coarsest map; where they differ from `dims`, a learned layer translates.
        others: how many other maps there are.
    """

    def __init__(self, dims: int, channels: int, others: int) -> None:
        super().__init__()
        self.translate = nn.Identity() if dims == channels else nn.Linear(dims, channels)
        self.shares = nn.Parameter(torch.tensor([LEAD] + [OTHER] * others))

    def direction(self, lead: Tensor) -> Tensor:
        """What the coarsest map is to be weighted by, (N, channels).

        Args:
            lead: see `nem.class_layers.Classes.lead`, (N, D).
        """
        found: Tensor = self.translate(lead)
        return found

    def forward(
        self, own: Tensor, evidence: Tensor, others: Sequence[Tensor], probability: Tensor
    ) -> Tensor:
        """The ranking (N, 1, h, w), unbounded.

        Args:
            own: the ranking head's logits, (N, 1, h, w).
            evidence: the coarsest map weighted by `direction`, enlarged to (N, 1, h, w).
            others: logits of the other heads, each (N, 1, h, w). No gradient goes back to them.
            probability: of the decided class, (N,).
        """
        placed = (STEEP * F.layer_norm(evidence, evidence.shape[2:])).sigmoid()
        lead, *shares = self.shares
        drawn = (own / WIDE).sigmoid()
        for share, logits in zip(shares, others, strict=True):
            drawn = drawn + share * logits.detach().sigmoid()
        trust = GAIN * (probability / SURE).clamp(max=1) ** TRUST
        total: Tensor = trust.to(drawn.dtype)[:, None, None, None] * drawn + GAIN * lead * placed
        return total

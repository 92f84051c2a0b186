"""The NEM-U loss: a small mask that keeps what the model sees, and whose rest does not.

With r = f(x), r_m = f(x seen through m), r_i = f(x seen through 1 - m), p = cos(r, r_m),
n = cos(r_m, r_i) and A = mean(m):

    intent   -1.5 p + p n + A          the text of the paper (section 4.1); the default
    code     4 P - N (P + 1e-6) + A / 2, with P = (1 - p) / 2 and N = (1 - n) / 2; as published
             code has it, but per sample instead of on batch means
    printed  -(1.5 + n) p + A          equations 4 to 9 as printed. The sign of n is wrong: it
             rewards a rest that looks like the kept part, so grey masks win. For tests only.

All are per sample; the batch loss is their mean.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from nem.config import Variant


class Loss(NamedTuple):
    """Per-sample values, each (N,).

    Attributes:
        loss: the loss.
        kept: p, cosine of full and kept embedding.
        binarity: n, cosine of kept and hidden embedding.
        area: A, mean of the mask.
    """

    loss: Tensor
    kept: Tensor
    binarity: Tensor
    area: Tensor


def nem_u_loss(
    full: Tensor,
    kept: Tensor,
    hidden: Tensor,
    mask: Tensor,
    variant: Variant = "intent",
    *,
    area_weight: float = 1.0,
) -> Loss:
    """The NEM-U loss of each sample, in float32.

    Args:
        full: embedding r of the pictures, (N, D).
        kept: embedding r_m of the pictures through the mask, (N, D).
        hidden: embedding r_i through one minus the mask, (N, D).
        mask: (N, 1, H, W) in [0, 1].
        variant: "intent", "code" or "printed".
        area_weight: factor of the area term; 1 is the paper's.
    """
    p = F.cosine_similarity(full.float(), kept.float(), dim=1)
    n = F.cosine_similarity(kept.float(), hidden.float(), dim=1)
    area = mask.float().flatten(1).mean(1)
    if variant == "intent":
        loss = -1.5 * p + p * n + area_weight * area
    elif variant == "code":
        far, apart = (1 - p) / 2, (1 - n) / 2
        loss = 4 * far - apart * (far + 1e-6) + area_weight * area / 2
    elif variant == "printed":
        loss = -(1.5 + n) * p + area_weight * area
    else:
        raise ValueError(f"loss variant {variant!r}: allowed are intent, code, printed")
    return Loss(loss, p, n, area)

"""The NEM-U loss: a small mask that keeps what the model sees, and whose rest does not.

With r = f(x), r_m = f(x seen through m), r_i = f(x seen through 1 - m), p = cos(r, r_m),
n = cos(r_m, r_i) and A = mean(m):

    intent   -1.5 p + p n + A          the text of the paper (section 4.1); the default
    code     4 P - N (P + 1e-6) + A / 2, with P = (1 - p) / 2 and N = (1 - n) / 2; as published
             code has it, but per sample instead of on batch means
    printed  -(1.5 + n) p + A          equations 4 to 9 as printed. The sign of n is wrong: it
             rewards a rest that looks like the kept part, so grey masks win. For tests only.

All are per sample; the batch loss is their mean. Below that, the losses of NEMt, of its
class-conditional kin, and of Ra-NEM.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nem.config import Score, Variant
from nem.errors import ArgumentError

ABSENT_WEIGHT = 2.0
"""Of the area of the map of an absent class."""


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

    Raises:
        ArgumentError: another variant.
    """
    p = F.cosine_similarity(full.float(), kept.float(), dim=1)
    n = F.cosine_similarity(kept.float(), hidden.float(), dim=1)
    area = _area(mask)
    if variant == "intent":
        loss = -1.5 * p + p * n + area_weight * area
    elif variant == "code":
        far, apart = (1 - p) / 2, (1 - n) / 2
        loss = 4 * far - apart * (far + 1e-6) + area_weight * area / 2
    elif variant == "printed":
        loss = -(1.5 + n) * p + area_weight * area
    else:
        raise ArgumentError(f"loss variant {variant!r}: allowed are intent, code, printed")
    return Loss(loss, p, n, area)


def class_score(
    logits: Tensor, target: Tensor, kind: Score = "softmax", scale: float = 1.0
) -> Tensor:
    """The score of each picture's own class, (N,), in float32.

    Args:
        logits: (N, classes).
        target: int64 (N,), 0 .. classes - 1.
        kind: "softmax": the probability, as published code has it; "logits": the logit itself, as
            the paper has it, in units of `scale`.
        scale: of "logits": what the model's logits usually differ by, so that weights carry over.

    Raises:
        ArgumentError: another kind, or not one class for each picture.
    """
    if target.shape != logits.shape[:1]:
        raise ArgumentError(
            f"target {tuple(target.shape)}: expected ({len(logits)},), one class for each picture"
        )
    if kind == "softmax":
        values = logits.float().softmax(1)
    elif kind == "logits":
        values = logits.float() / scale
    else:
        raise ArgumentError(f"score {kind!r}: allowed are softmax, logits")
    return values.gather(1, target[:, None]).squeeze(1)


def nemt_loss(full: Tensor, hidden: Tensor, mask: Tensor, area_weight: float = 0.5) -> Tensor:
    """NEMt: hiding a small part changes the class's score much.

    L = -(s_c(x) - s_c((1 - e) x))^2 + lambda_1 mean(e). The paper's equation 2, read literally,
    has x seen through e itself, and is minimal for e = 0; published code optimises 1 - e instead,
    which this says directly.

    Args:
        full: the class's score on the whole picture, (N,).
        hidden: the same with what the mask marks hidden, (N,).
        mask: e, (N, 1, H, W) in [0, 1].
        area_weight: lambda_1.

    Returns:
        (N,) in float32.
    """
    return -((full.float() - hidden.float()) ** 2) + area_weight * _area(mask)


def target_loss(
    full: Tensor,
    hidden: Tensor,
    kept: Tensor,
    mask: Tensor,
    absent: Tensor,
    area_weight: float = 0.5,
) -> Tensor:
    """A class-conditional mask: NEMt plus "the part alone is enough"; empty for absent classes.

    Classes in the picture: NEMt's loss + (s_c(x) - s_c(e x))^2. The part alone is to give what the
    whole gives, not more: a class that is hardly there has a small map. Absent classes:
    `ABSENT_WEIGHT` mean(e). Ours; after Dabkowski and Gal 2017.

    Args:
        full: score of the asked class on the whole picture, (N,).
        hidden: the same with what the mask marks hidden, (N,).
        kept: the same with all else hidden, (N,).
        mask: e, (N, 1, H, W) in [0, 1].
        absent: bool (N,), whether the asked class is not in the picture.
        area_weight: lambda_1.

    Returns:
        (N,) in float32.

    Raises:
        ArgumentError: `absent` is not boolean, or not one for each picture.
    """
    if absent.dtype != torch.bool or absent.shape != mask.shape[:1]:
        raise ArgumentError(
            f"absent {tuple(absent.shape)} of {absent.dtype}: expected bool ({len(mask)},), one "
            "for each picture"
        )
    lack = (full.float() - kept.float()) ** 2
    present = nemt_loss(full, hidden, mask, area_weight) + lack
    return torch.where(absent, ABSENT_WEIGHT * _area(mask), present)


def ra_nem_loss(
    kept: Tensor, deleted: Tensor | None = None, deletion_weight: float = 0.0
) -> Tensor:
    """Ra-NEM: the pixels ranked first are enough for the class, whatever their number.

    L = -mean over k of the probability of the class from the top k + deletion_weight times the
    same from all others. The "1 -" of equation 12 belongs in the loss; read literally, the least
    important pixels would be ranked first. The deletion term is ours.

    Args:
        kept: probability from the top k pixels, (N, K).
        deleted: probability from all other pixels, (N, K); needed for `deletion_weight`.
        deletion_weight: factor of the mean of `deleted`; 0 is the paper's.

    Returns:
        (N,) in float32.

    Raises:
        ArgumentError: `deletion_weight` without `deleted`.
    """
    loss = -kept.float().mean(1)
    if not deletion_weight:
        return loss
    if deleted is None:
        raise ArgumentError(
            f"deletion_weight {deletion_weight}: needs the scores of the deleted; give `deleted`"
        )
    return loss + deletion_weight * deleted.float().mean(1)


def _area(mask: Tensor) -> Tensor:
    """Mean of each mask, (N,) in float32."""
    return mask.float().flatten(1).mean(1)

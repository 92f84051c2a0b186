"""Figures of each head of the default, for its card."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engines import resize
from nem.data import normalise
from nem.faithfulness import faithfulness
from nem.gauge import Gauge, gauge
from nem.losses import class_score
from nem.masking import hide
from nem.model import NEM
from nem.objectives import absent_from
from nem.scoring import class_score as watch_class
from scripts.default_data import MEAN, STD

BATCH = 50
JUDGED = 1000
"""Pictures that figures are means over, where there are so many."""
RANKED = 5
"""One in so many of them counts for the ranking's curves, which are slow."""


def judge(model: NEM, images: Sequence[np.ndarray]) -> dict[str, float]:
    """Means over pictures spread evenly over `images`.

    Keys are "<aim>_<figure>"; what they mean is in `scripts.default_card`.
    """
    size = (model.backbone.input_size,) * 2
    count = min(JUDGED, len(images))
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, count).astype(int)]
    generator = torch.Generator().manual_seed(0)
    rows: dict[str, list[Tensor]] = {}
    for start in range(0, count, BATCH):
        raw = np.stack([resize(image, size) for image in chosen[start : start + BATCH]])
        x = normalise(torch.from_numpy(raw), MEAN, STD)
        for key, value in _figures(model, x, generator).items():
            rows.setdefault(key, []).append(value.float())
    means = {key: float(torch.cat(parts).mean()) for key, parts in rows.items()}
    if "target_area" in means:
        means["target_absent_over_true"] = means.pop("target_absent_area") / means["target_area"]
    return {key: round(value, 4) for key, value in means.items()}


@torch.no_grad()
def _figures(model: NEM, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    backbone, values = model.backbone, {}
    output = model(x)
    assert output.logits is not None
    order = output.logits.argsort(1, descending=True)
    best = order[:, 0]
    before = class_score(output.logits, best)
    for aim, mask in output.maps.items():
        if aim == "embedding":
            measured = gauge(model, x, mask, generator=generator)
            values |= {f"{aim}_{k}": getattr(measured, k) for k in Gauge._fields}
        elif aim == "ranking":
            part = slice(None, None, RANKED)
            found = faithfulness(watch_class(backbone, x[part], best[part]), x[part], mask[part])
            values |= {f"{aim}_insertion": found.insertion, f"{aim}_deletion": found.deletion}
        else:
            rest, alone = (
                class_score(backbone(hide(x, shown)).logits, best) for shown in (1 - mask, mask)
            )
            values |= {f"{aim}_drop": before - rest, f"{aim}_alone": alone}
            values[f"{aim}_area"] = mask.flatten(1).mean(1)
    if "target" in output.maps:
        # One absent class per picture, from those the heads were told are absent.
        classes = order.shape[1]
        far = torch.randint(absent_from(classes), classes, (len(x), 1), generator=generator)
        absent = model(x, order.gather(1, far).squeeze(1)).maps["target"].flatten(1).mean(1)
        values["target_absent_area"] = absent
    return values

"""Pictures for the default backbone: decoding, cropping, colour jitter, blob masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def load_split(folder: Path) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Decode `folder/<class>/*` into RGB uint8 arrays (H, W, 3), labels and class names."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    images, labels = [], []
    for index, name in enumerate(names):
        for path in sorted((folder / name).iterdir()):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is not None:
                images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
                labels.append(index)
    return images, np.asarray(labels), names


def random_crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Random crop of 20-100 % of the area, aspect ratio 1/2 to 2, flipped half the time."""
    height, width = image.shape[:2]
    for _ in range(8):
        area = height * width * rng.uniform(0.2, 1.0)
        ratio = np.exp(rng.uniform(np.log(0.5), np.log(2.0)))
        h, w = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
        if 0 < h <= height and 0 < w <= width:
            break
    else:
        h, w = height, width
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    crop = cv2.resize(
        image[top : top + h, left : left + w],
        (size, size),
        interpolation=cv2.INTER_AREA if h > size else cv2.INTER_LINEAR,
    )
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def normalise(batch: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in channels-last memory, mean 0 and std 1."""
    x = batch.permute(0, 3, 1, 2).float().div_(255)
    return x.sub_(torch.tensor(MEAN).view(1, 3, 1, 1)).div_(torch.tensor(STD).view(1, 3, 1, 1))


def jitter(x: Tensor, gen: torch.Generator) -> Tensor:
    """Random brightness, contrast and saturation per picture; one in ten turned grey."""
    n = len(x)

    def factor(strength: float) -> Tensor:
        return 1 + strength * (2 * torch.rand(n, 1, 1, 1, generator=gen) - 1)

    grey = x.mean(1, keepdim=True)
    saturation = factor(0.5) * (torch.rand(n, 1, 1, 1, generator=gen) > 0.1)
    x = grey + (x - grey) * saturation
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * factor(0.4) + mean + (factor(0.4) - 1) * 2


def blob_mask(n: int, size: int, gen: torch.Generator) -> Tensor:
    """Smooth random keep-masks in [0, 1], (n, 1, size, size), keeping 20-80 % of the area."""
    coarse = torch.rand(n, 1, 6, 6, generator=gen)
    field = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    keep = 0.2 + 0.6 * torch.rand(n, 1, 1, 1, generator=gen)
    level = torch.stack(
        [torch.quantile(f, 1 - k) for f, k in zip(field, keep.flatten(), strict=True)]
    )
    return torch.sigmoid((field - level.view(-1, 1, 1, 1)) * 30)

"""Pictures for the default: decoding, cropping, clutter, colour jitter, blob masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nem.errors import DataError

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Split(NamedTuple):
    """Decoded pictures RGB uint8 (H, W, 3), their labels, and the names of all classes.

    `digest` tells these pictures, labels and names from all others.
    """

    images: list[np.ndarray]
    labels: np.ndarray
    names: list[str]
    digest: str


def load_split(folder: Path, names: list[str] | None = None) -> Split:
    """Decode `folder/<class>/*` of a data set's training or validation part.

    `names` are the classes, in the order of labels; default: all there are.

    Raises:
        DataError: there is no picture, or a class beyond `names`.
    """
    found = sorted(p.name for p in folder.glob("*") if p.is_dir())
    names = found if names is None else names
    if unknown := sorted(set(found) - set(names)):
        raise DataError(f"{folder}: {unknown[0]} is no class of the training part; move it away")
    images, labels, digest = [], [], hashlib.sha256(repr(names).encode())
    for index, name in enumerate(names):
        for path in sorted((folder / name).glob("*")):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is not None:
                images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
                labels.append(index)
                digest.update(f"{index} {image.shape}".encode())
                digest.update(image)
    if not images:
        raise DataError(f"{folder}: expected pictures in <class>/; found none")
    return Split(images, np.asarray(labels), names, digest.hexdigest())


def random_crop(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    share: tuple[float, float] = (0.2, 1.0),
) -> np.ndarray:
    """Random crop of a `share` of the area, aspect ratio 1/2 to 2, flipped half the time."""
    height, width = image.shape[:2]
    for _ in range(8):
        area = height * width * rng.uniform(*share)
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


def surroundings(pictures: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Clutter, (size, size, 3): the four corners of four pictures, where objects seldom are."""
    half = -(-size // 2)
    canvas = np.empty((size, size, 3), np.uint8)
    for i, picture in enumerate(pictures):
        down, right = divmod(i, 2)
        height, width = picture.shape[:2]
        h, w = height * 2 // 5, width * 2 // 5
        corner = picture[height - h if down else 0 :, width - w if right else 0 :][:h, :w]
        rows, columns = (
            slice(down * half, (down + 1) * half),
            slice(right * half, (right + 1) * half),
        )
        shape = canvas[rows, columns].shape
        canvas[rows, columns] = cv2.resize(corner, shape[1::-1])
    return canvas


def on_clutter(
    image: np.ndarray,
    clutter: np.ndarray,
    rng: np.random.Generator,
    share: tuple[float, float] = (0.35, 0.85),
) -> np.ndarray:
    """`image` at a random place on `clutter` (S, S, 3), its side a `share` of S; (S, S, 3).

    Teaches a model that was shown pictures full of one object to find it in a wide view. The seam
    is soft and round, so that no straight edge gives the place away.
    """
    size = len(clutter)
    scale, stretch = rng.uniform(*share), rng.uniform(0.8, 1.25)
    height, width = (min(size, round(size * s)) for s in (scale * stretch, scale / stretch))
    top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    part = cv2.resize(
        random_crop(image, size, rng, (0.6, 1.0)), (width, height), interpolation=cv2.INTER_AREA
    )
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    power = rng.choice((2.5, 4.0, 8.0))
    radius = (np.abs(y) ** power + np.abs(x) ** power) ** (1 / power)
    alpha = np.clip((1 - radius) / 0.15, 0, 1).astype(np.float32)[..., None]
    canvas = clutter.astype(np.float32)
    window = canvas[top : top + height, left : left + width]
    window += alpha * (part - window)
    return np.rint(canvas).astype(np.uint8)


def clutter_of(images: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """`surroundings` of random pictures: the corners of one make a scene, those of four clutter."""
    corners = rng.integers(len(images), size=4 if rng.random() < 0.5 else 1)
    return surroundings([images[i] for i in np.resize(corners, 4)], size)


def write_composites(split: Split, folder: Path, count: int, size: int, seed: int) -> Path:
    """Write `count` pictures for the decoder into a folder of their own below `folder`.

    They show one object amid clutter, or two in one scene. Two objects are what
    tells a class-conditional explanation which of them is meant.
    """
    images = split.images
    folder = folder / f"{count}-of-{size}-seed-{seed}-{split.digest[:8]}"
    done = folder / "complete"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        for index in range(count):
            picture = clutter_of(images, size, rng)
            two = index % 2 == 1
            for place in rng.integers(len(images), size=2 if two else 1):
                share = (0.35, 0.6) if two else (0.35, 0.85)
                picture = on_clutter(images[place], picture, rng, share)
            bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / f"{index:05d}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
        done.touch()
    return folder


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

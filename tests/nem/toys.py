"""Tiny models and pictures for the tests of the method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from nem.backbone import Backbone, create_backbone
from nem.bundle import Bundle
from nem.bundle_io import round_weights_, write_bundle
from nem.model import NEM

SIZE = 64

# Families: a CNN with five maps, one with four, a mobile one whose head is a convolution, a
# transformer with prefix tokens and maps of one stride, and one that works in NHWC.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("resnet10t", {"channels": (8, 12, 16, 24), "stem_width": 8}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24)}),
    "mobilenet": ("mobilenetv3_small_050", {}),
    "vit": (
        "vit_tiny_patch16_224",
        {"patch_size": 8, "embed_dim": 32, "depth": 5, "num_heads": 2, "reg_tokens": 2},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {
            "embed_dim": 16,
            "depths": (1, 1, 1, 1),
            "num_heads": (1, 2, 2, 4),
            "window_size": 2,
            "img_size": SIZE,
        },
    ),
}


def tiny_backbone(family: str = "resnet", *, size: int = SIZE, num_classes: int = 5) -> Backbone:
    """A randomly initialised member of a family; the same one each time."""
    name, kwargs = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_backbone(name, input_size=size, num_classes=num_classes, **kwargs)


def tiny_nem(family: str = "resnet", kind: str = "lite", **kwargs: Any) -> NEM:
    """A model whose decoder has seen something, so that BatchNorm is not at its start."""
    backbone = tiny_backbone(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = NEM(backbone, kind, **({"width": 16} if kind == "lite" else {}) | kwargs)
        with torch.no_grad():
            for _ in range(10):
                model.train()(torch.randn(8, 3, SIZE, SIZE))
    return model.eval()


def batch(n: int = 4, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    """Normalised pictures (n, 3, size, size)."""
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def write_tiny_bundle(folder: Path, model: NEM | None = None, **changes: Any) -> Bundle:
    """A whole bundle of a tiny model. Its graph is bytes only: nothing here runs it."""
    model = model or tiny_nem()
    round_weights_(model)
    graph = folder.parent / "some.onnx"
    graph.write_bytes(b"a graph")
    values: dict[str, Any] = {
        "name": "tiny",
        "training": {"seed": 0},
        "quality": {"kept": 0.5},
        "card": "# tiny\n",
        "classes": ("a", "b", "c", "d", "e"),
    }
    return write_bundle(folder, model, graph, **values | changes)


def shapes(n: int, seed: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures of one of four shapes on a noisy ground: RGB uint8, labels, object masks."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((n, size, size, 3), np.uint8)
    truth = np.zeros((n, size, size), np.uint8)
    labels = rng.integers(0, 4, n)
    for picture, mask, label in zip(pictures, truth, labels, strict=True):
        ground = rng.integers(90, 165, (16, 16, 3), dtype=np.uint8)
        picture[:] = cv2.resize(ground, (size, size))
        r = int(rng.integers(9, 14))
        x, y = (int(v) for v in rng.integers(r + 2, size - r - 2, 2))
        if label == 0:
            cv2.rectangle(mask, (x - r, y - r), (x + r, y + r), 1, -1)
        elif label == 1:
            cv2.circle(mask, (x, y), r, 1, -1)
        elif label == 2:
            corners = np.array([[x, y - r], [x - r, y + r], [x + r, y + r]], np.int32)
            cv2.fillPoly(mask, [corners], 1)
        else:
            cv2.rectangle(mask, (x - r, y - r // 3), (x + r, y + r // 3), 1, -1)
            cv2.rectangle(mask, (x - r // 3, y - r), (x + r // 3, y + r), 1, -1)
        picture[mask > 0] = rng.integers(0, 256, 3)
    return pictures, labels, truth


def write_pictures(folder: Path, pictures: np.ndarray) -> Path:
    """Write RGB pictures as PNG files 000.png, 001.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        assert cv2.imwrite(str(folder / f"{index:03d}.png"), picture[..., ::-1])
    return folder

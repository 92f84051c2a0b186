"""`nem.pictures.resize` in torch, for graphs and for pictures on a GPU.

It is written as two matrix products whose weights are made from the picture's height and width:
area averages and linear interpolation are linear, and products are what all runtimes agree on
(OpenVINO drops `antialias` from ONNX Resize without a word).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_weights(length: int, size: int, device: torch.device | None = None) -> Tensor:
    """The matrix that resizes one axis of `length` pixels to `size` pixels.

    A shrinking axis is averaged over area (as cv2.INTER_AREA), a growing one is interpolated
    linearly between pixel centres with clamped ends (as cv2.INTER_LINEAR); equal lengths give
    the identity. Written without branches on `length`, which is symbolic during export.

    Returns:
        float32 (size, length), each row sums to 1.
    """
    pixel = torch.arange(length, dtype=torch.float32, device=device)
    out = torch.arange(size, dtype=torch.float32, device=device)[:, None]
    last = pixel[-1:]
    step = (last + 1) / size
    overlap = torch.minimum(pixel + 1, (out + 1) * step) - torch.maximum(pixel, out * step)
    area = overlap.clamp(min=0) / step
    centre = torch.minimum(((out + 0.5) * step - 0.5).clamp(min=0), last)
    linear = (1 - (centre - pixel).abs()).clamp(min=0)
    return torch.where(step >= 1, area, linear)


def resize_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize float frames (N, H, W, 3) to (N, *size, 3) by two matrix products."""
    height, width = frames.shape[1:3]
    rows = resize_weights(height, size[0], frames.device)
    columns = resize_weights(width, size[1], frames.device)
    frames = torch.matmul(rows, frames.flatten(2))
    return torch.matmul(columns, frames.reshape(-1, size[0], width, 3))


def resize_planes(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize float planes (N, C, H, W) to (N, C, *size), growing ones without products."""
    (rows, columns), (height, width) = planes.shape[2:], size
    if (rows, columns) == size:
        return planes
    if height >= rows and width >= columns:
        return F.interpolate(planes, size=size, mode="bilinear", align_corners=False)
    down = resize_weights(rows, height, planes.device).to(planes.dtype)
    across = resize_weights(columns, width, planes.device).to(planes.dtype)
    return down @ planes @ across.T

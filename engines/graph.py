"""The fused graph: uint8 RGB frames (and classes) in; a map per head, scores, embedding out.

Everything between the frame and the explanation is inside, so every runtime computes the same.
The resize is `nem.pictures.resize` written as two matrix products whose weights are made from the
frame's height and width: area averages and linear interpolation are linear, and products are what
all runtimes agree on (OpenVINO drops `antialias` from ONNX Resize without a word).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.onnx_passes import graph_outputs
from nem.explanation import Aim
from nem.model import NEM, Output


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


class FrameGraph(nn.Module):
    """A NEM with its preprocessing, ready to run or to export.

    Args:
        model: the explained model with its decoder; input size, mean and deviation are asked of
            its backbone.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: NEM) -> None:
        super().__init__()
        self.model = model
        self.input_size = (model.backbone.input_size,) * 2
        mean, std = torch.tensor(model.backbone.mean), torch.tensor(model.backbone.std)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, frames: Tensor, target: Tensor | None = None) -> tuple[Tensor, ...]:
        """Explain frames of any size, by all heads.

        Args:
            frames: RGB uint8 (N, H, W, 3).
            target: int64 (N,), the class that the target head explains in each frame; -1, or
                None, is the most probable one.

        Returns:
            For each of the model's aims, in order, its map, float32 (N, S, S), in [0, 1] but for
            `ranking`, which is unbounded; then scores float32 (N, C), probabilities, left out when
            the model has no classes; then embedding float32 (N, D).
        """
        output = self.model(self.prepare(frames), target)
        maps = (self.map(output, aim) for aim in self.model.aims)
        scores = self.scores(output)
        rest = () if scores is None else (scores,)
        return (*maps, *rest, output.embedding.float())

    def prepare(self, frames: Tensor) -> Tensor:
        """Frames uint8 (N, H, W, 3) to normalised float32 pictures (N, 3, S, S)."""
        # The cast comes first: TensorRT takes no other operator on uint8.
        pixels = frames.to(torch.float32)
        # In export the size is symbolic and the resize always drawn; see `engines.ov` for its cut.
        if torch.compiler.is_exporting() or frames.shape[1:3] != self.input_size:
            pixels = resize_frames(pixels, self.input_size)
        pixels = pixels * self.scale + self.shift
        return pixels.permute(0, 3, 1, 2).contiguous()

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` gives, in order."""
        return graph_outputs(self.model.aims, scores=self.model.backbone.num_classes > 0)

    @staticmethod
    def map(output: Output, aim: Aim) -> Tensor:
        """The map of one aim, float32 (N, S, S)."""
        return output.maps[aim].squeeze(1).float()

    @staticmethod
    def scores(output: Output) -> Tensor | None:
        """Class probabilities, float32 (N, C), or None."""
        return None if output.logits is None else output.logits.float().softmax(dim=1)

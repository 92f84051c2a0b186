"""The fused graph: uint8 RGB frames (and classes) in; a map per head, scores, embedding out.

Everything between the frame and the explanation is inside, so every runtime computes the same. The
resize is that of `engines.resizing`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.onnx_passes import graph_outputs
from engines.resizing import resize_frames
from nem.explanation import Aim
from nem.model import NEM, Output


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

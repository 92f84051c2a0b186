"""The fixed graph with the picture drawn inside: frames in, frames tinted by a mask out.

The drawing is the stream's default style, in the stream's order (see `stream.paint`): each mask
level has a colour and an opacity, looked up at mask size, and what is enlarged to the frame is
the tint, not the mask. So a picture drawn on a GPU looks like one drawn on the CPU.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.errors import OptionError
from engines.fixed_graph import FixedGraph
from engines.onnx_passes import OVERLAY
from engines.resizing import resize_planes
from nem.explanation import Aim
from nem.model import NEM

STRENGTH = 0.65
"""Opacity of the tint at mask 1; it falls linearly to 0 at mask 0."""


def heat_table() -> Tensor:
    """What to do with a pixel of each mask level.

    Returns:
        float32 (256, 4): the level's colour (RGB, 0..255) times its opacity, to be added, and the
        share of the frame to keep.
    """
    levels = np.arange(256, dtype=np.uint8)[:, None]
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, 0, ::-1].astype(np.float64)
    opacity = STRENGTH * levels / 255
    return torch.from_numpy(np.hstack([colours * opacity, 1 - opacity]).astype(np.float32))


class OverlayGraph(FixedGraph):
    """A `FixedGraph` whose first output is the drawn frame, uint8 (N, H, W, 3).

    Args:
        model: left as it is; the graph has a copy.
        frame_size: (height, width) of the frames; default: the model's input size.
        precision: of `engines.fixed_graph.DTYPES`; the picture is blended in float32 at any.
        aim: whose mask is drawn; default the model's first aim that has a mask. A ranking has
            none: its percentiles are made of the whole map, after the graph.

    Raises:
        OptionError: see `FixedGraph`; an aim that the model lacks or that can't be drawn.
    """

    tints: Tensor

    def __init__(
        self,
        model: NEM,
        frame_size: tuple[int, int] | None = None,
        precision: str = "f32",
        aim: Aim | None = None,
    ) -> None:
        drawn = [one for one in model.aims if one != "ranking"]
        if not drawn or aim not in (None, *drawn):
            asked = f"of {aim}" if aim else "asked for"
            raise OptionError(
                f"overlay {asked}, the model can draw: {', '.join(drawn) or 'nothing'}; "
                "without overlay the stream draws any aim"
            )
        super().__init__(model, frame_size, precision)
        self.aim: Aim = aim or drawn[0]
        # float16 halves the traffic of the largest tensor and is off by an eighth of a level at
        # most; bfloat16 would be off by a whole one.
        dtype = torch.float16 if precision == "f16" else torch.float32
        self.register_buffer("tints", heat_table().to(dtype), persistent=False)

    def forward(self, frames: Tensor, target: Tensor | None = None) -> tuple[Tensor, ...]:
        """See `FrameGraph.forward`; the drawn frames come first."""
        found = super().forward(frames, target)
        return (self.paint(frames, found[self.model.aims.index(self.aim)]), *found)

    @property
    def outputs(self) -> list[str]:
        """See `FrameGraph.outputs`."""
        return [OVERLAY, *super().outputs]

    def paint(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Tint frames uint8 (N, H, W, 3) by masks (N, S, S) in [0, 1]; returns new ones."""
        levels = (mask * 255).round().clamp(0, 255).to(torch.int32)
        tints = F.embedding(levels, self.tints).permute(0, 3, 1, 2).contiguous()
        tints = resize_planes(tints, self.frame_size).permute(0, 2, 3, 1).float()
        drawn = frames.to(torch.float32) * tints[..., 3:] + tints[..., :3]
        # TensorRT cuts off the fraction and does not say what it makes of numbers beyond 0..255.
        return (drawn + 0.5).floor().clamp(0, 255).to(torch.uint8)

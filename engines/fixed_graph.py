"""The fused graph for one frame size and one precision, in forms that TensorRT takes whole.

TensorRT compiles best what does not vary, and takes its types from the graph. So the frame size is
fixed here, the arithmetic is that of the weights, and only operators it converts are left.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from engines.errors import OptionError
from engines.graph import FrameGraph
from engines.resizing import resize_weights
from nem.model import NEM

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
"""Precisions of the graph's arithmetic."""


class FixedGraph(FrameGraph):
    """A `FrameGraph` whose frames have one size.

    Inputs and outputs are those of `FrameGraph`; outputs are float32 at any precision, and
    sigmoid, softmax and smoothing are computed in float32.

    Args:
        model: left as it is; the graph has a copy.
        frame_size: (height, width) of the frames; default: the model's input size.
        precision: of `DTYPES`.

    Raises:
        OptionError: another precision, or a size below one pixel.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self, model: NEM, frame_size: tuple[int, int] | None = None, precision: str = "f32"
    ) -> None:
        if precision not in DTYPES:
            raise OptionError(f"precision {precision!r}, allowed: {', '.join(DTYPES)}")
        super().__init__(copy.deepcopy(model))
        self.frame_size = frame_size or self.input_size
        if min(self.frame_size) < 1:
            raise OptionError(f"frame size {self.frame_size}: height and width from 1")
        self.precision, self.dtype = precision, DTYPES[precision]
        # Made once: not every compiler folds what makes them. float16 holds all levels of a pixel
        # and rounds a resized one by an eighth of a level; bfloat16 would by a whole one.
        dtype = torch.float16 if precision == "f16" else torch.float32
        rows, columns = map(resize_weights, self.frame_size, self.input_size)
        self.register_buffer("rows", rows.to(dtype), persistent=False)
        self.register_buffer("columns", columns.T.to(dtype).contiguous(), persistent=False)
        self.eval()
        self.model.tabulate_()
        _plain_pooling(self)
        self.model.to(self.dtype)

    def prepare(self, frames: Tensor) -> Tensor:
        """See `FrameGraph.prepare`; normalised in float32, and cast last."""
        pixels = self._resize(frames) if self.frame_size != self.input_size else frames.float()
        pixels = pixels * self.scale + self.shift
        return pixels.permute(0, 3, 1, 2).contiguous().to(self.dtype)

    def _resize(self, frames: Tensor) -> Tensor:
        """Frames uint8 (N, H, W, 3) to float32 (N, S, S, 3)."""
        width, side = self.frame_size[1], self.input_size[0]
        pixels = frames.to(self.rows.dtype)  # this comes first: TensorRT takes no other on uint8
        pixels = self.rows @ pixels.flatten(2)
        # Colours join the rows: with three columns a product leaves a GPU all but idle.
        pixels = pixels.reshape(-1, side, width, 3).transpose(2, 3)
        pixels = pixels.reshape(-1, side * 3, width) @ self.columns
        return pixels.reshape(-1, side, 3, side).transpose(2, 3).float()

    def example(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Inputs of the right shapes: frames, and classes where there is a target head."""
        frames = torch.zeros((batch, *self.frame_size, 3), dtype=torch.uint8)
        classes = torch.full((batch,), -1, dtype=torch.int32)
        return (frames, classes) if "target" in self.model.aims else (frames,)


def _plain_pooling(graph: FrameGraph) -> None:
    """Take rounding options off pools that have nothing to round: TensorRT refuses them.

    With windows that fill the map evenly and no padding, `ceil_mode` and `count_include_pad`
    (resnet-d) change nothing. The sizes are those of one run at the model's input size.
    """
    pools = [m for m in graph.modules() if isinstance(m, nn.AvgPool2d) and m.ceil_mode]
    even: dict[nn.Module, bool] = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kernel, stride, padding = (
            value if isinstance(value, tuple) else (value, value)
            for value in (module.kernel_size, module.stride, module.padding)
        )
        fits = all(
            p == 0 and (length - k) % s == 0
            for length, k, s, p in zip(inputs[0].shape[2:], kernel, stride, padding, strict=True)
        )
        even[module] = even.get(module, True) and fits

    with torch.no_grad(), ExitStack() as hooks:
        for pool in pools:
            hooks.enter_context(pool.register_forward_pre_hook(look))
        graph.model(torch.zeros(1, 3, *graph.input_size))
    for pool in pools:
        if even.get(pool, False):
            pool.ceil_mode, pool.count_include_pad = False, True

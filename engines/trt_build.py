"""From a model to a plain TensorRT engine, by way of Torch-TensorRT.

What comes out are an engine's bytes: running them takes neither torch nor Torch-TensorRT. An
engine is all or nothing: an operator that TensorRT lacks is an error, never a slower engine.
Building needs torch and Torch-TensorRT 2.11 or newer; `engines.trt_onnx` needs neither.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from engines.alone import alone
from engines.cuda_memory import DeviceMemoryError
from engines.errors import EngineError, EngineUnavailable, OptionError
from engines.onnx_passes import CLASSES, FRAMES
from engines.trt_api import Flavour, load_trt, tells_no_memory, trt_version
from engines.trt_quant import QUANTISED, check_quantised, exporting
from nem.errors import first_line

if TYPE_CHECKING:
    import torch

    from engines.calibration import Pictures
    from engines.fixed_graph import FixedGraph
    from engines.trt_convert import Conversion
    from nem.model import NEM

PRECISIONS = ("f16", "f32", "bf16")
"""Precisions of the arithmetic, `auto` first; TensorRT takes them from the graph."""

Say = Callable[[str], None]

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What an engine is built for.

    Attributes:
        frame_size: (height, width) of the frames; None is the model's input size.
        precision: of `PRECISIONS` or `engines.trt_quant.QUANTISED`. In f32 products are exact;
            else what stays float32 around the model (the resize) may be multiplied as TF32.
        batch: frames per call.
        flavour: "tensorrt", or "tensorrt-rtx", whose engines run on any RTX GPU, but only with
            the release that built them.
        overlay: draw the frames as well, see `engines.overlay_graph`.
        workspace_mb: the most GPU memory for passing results, in MiB; None is all there is.
        version_compatible: an engine that newer TensorRTs and the lean runtime load, too; it may
            be slower. Not for tensorrt-rtx.
        dynamic: a call may have any number of frames up to `batch`, for which it is fastest. For
            one number alone a fixed engine is faster.
        calibration: what a quantised engine is calibrated with, such as will be looked at: an
            image, a video or a folder of them; to build it, pictures that were read. None for
            others.

    Raises:
        OptionError: a value that is not allowed.
    """

    frame_size: tuple[int, int] | None = None
    precision: str = "f16"
    batch: int = 1
    flavour: Flavour = "tensorrt"
    overlay: bool = False
    workspace_mb: int | None = None
    version_compatible: bool = False
    dynamic: bool = False
    calibration: Path | Pictures | None = None

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("flavour", self.flavour, get_args(Flavour)),
            ("precision", self.precision, (*PRECISIONS, *QUANTISED)),
        ):
            if value not in allowed:
                raise OptionError(f"TensorRT {what} {value!r}, allowed: {', '.join(allowed)}")
        check_quantised(self.flavour, self.precision, self.calibration)
        if self.frame_size is not None and min(self.frame_size) < 1:
            raise OptionError(f"frame size {self.frame_size}: height and width from 1")
        if self.batch < 1:
            raise OptionError(f"TensorRT batch {self.batch}: frames per call, from 1")
        if self.dynamic and self.batch == 1:
            raise OptionError("TensorRT dynamic batch 1: the most frames per call, from 2")
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise OptionError(
                f"TensorRT workspace {self.workspace_mb} MiB: from 1, or leave it out"
            )
        if self.version_compatible and self.flavour == "tensorrt-rtx":
            raise OptionError(
                "version compatible asked for tensorrt-rtx, whose engines run only with the "
                "release that built them; leave it out, or use tensorrt"
            )

    @property
    def workspace(self) -> int:
        """Bytes of the workspace, 0 for no limit."""
        return (self.workspace_mb or 0) << 20

    @property
    def frames(self) -> str:
        """How many frames a call has, in words."""
        return f"1 to {self.batch}" if self.dynamic else str(self.batch)


def build_engine(model: NEM, options: BuildOptions, say: Say | None = None) -> bytes:
    """Compile a model, with all its heads, for torch's current GPU.

    Inputs of the engine: `frames` uint8 (B, H, W, 3) and, with a target head, `target` int32
    (B,). Outputs: `overlay` uint8 (B, H, W, 3) if asked for, then float32 and by the names of
    `engines.onnx_passes` those of `engines.graph.FrameGraph`. B is the batch, or of a dynamic
    engine any number from 1 to it.

    Args:
        model: left as it is.
        options: what to build.
        say: told in a line what is being done; default nobody.

    Returns:
        The serialized engine.

    Raises:
        OptionError: an overlay of a model that can't draw one.
        EngineUnavailable: no Torch-TensorRT of this flavour or version, no GPU, or no modelopt.
        DeviceMemoryError: the GPU has too little memory to build it.
        EngineError: the model can't be exported, calibrated or compiled.
    """
    from engines.trt_convert import convert, load_converter, register_uint8_output

    load_converter(options.flavour)
    if options.overlay:
        register_uint8_output()
    try:
        with alone:
            graph = make_graph(model, options, say)
            with exporting(options.precision):
                return compile_graph(graph, options, convert, say)
    except (RuntimeError, EngineError) as error:  # torch's own, or one that tells of it
        if not tells_no_memory(str(error)):
            raise
        raise DeviceMemoryError(
            f"{options.flavour}: too little GPU memory to build for batch {options.frames}: "
            f"{first_line(error)}"
        ) from None


def compile_graph(
    graph: FixedGraph,
    options: BuildOptions,
    make: Callable[[Any, Conversion], Made],
    say: Say | None = None,
) -> Made:
    """Export a graph for torch's current GPU, and let Torch-TensorRT make something of it.

    Args:
        graph: on the CPU; taken over.
        options: what to build.
        make: of `engines.trt_convert`: `convert` or `compile_module`.
        say: told in a line what is being done; default nobody.

    Returns:
        What `make` gave.

    Raises:
        See `build_engine`.
    """
    from engines.trt_convert import Conversion, load_converter

    tell = say or (lambda _: None)
    converter = load_converter(options.flavour)
    name, (height, width) = graph.model.backbone.name, graph.frame_size
    what = f"{name} for frames of {width}x{height}, batch {options.frames}, {options.precision}"
    example = graph.example(options.batch)
    if options.flavour == "tensorrt":  # that of RTX compiles for GPUs that it has not seen
        example = tuple(tensor.to(_gpu()) for tensor in example)
    most = options.batch if options.dynamic else None
    with alone, _timings(options.flavour) as timings:
        tell(f"exporting {what}")
        program = _exported(graph.to(example[0].device), example, name, most)
        tell(f"building {what} with {options.flavour}: may take minutes")
        return make(
            converter,
            Conversion(
                name=name,
                program=program,
                example=example,
                inputs=(FRAMES, CLASSES)[: len(example)],
                outputs=tuple(graph.outputs),
                options=options,
                timings=timings,
            ),
        )


def make_graph(model: NEM, options: BuildOptions, say: Say | None = None) -> FixedGraph:
    """The graph that `build_engine` compiles, on the CPU.

    Raises:
        OptionError: an overlay of a model that can't draw one.
        EngineUnavailable, EngineError: see `engines.quant_graph`.
    """
    from engines.fixed_graph import FixedGraph
    from engines.overlay_graph import OverlayGraph

    kind = OverlayGraph if options.overlay else FixedGraph
    if options.calibration is not None:
        from engines.quant_graph import calibrated_graph

        return calibrated_graph(kind, model, options, say)
    return kind(model, options.frame_size, options.precision)


def _gpu() -> torch.device:
    import torch

    if not torch.cuda.is_available():
        raise EngineUnavailable(
            "tensorrt builds on the GPU that the engine is for, and torch sees none; build it "
            "there, or use engine openvino"
        )
    return torch.device("cuda", torch.cuda.current_device())


def _exported(
    graph: FixedGraph, example: tuple[torch.Tensor, ...], name: str, most: int | None
) -> Any:
    """The program; for any number of frames up to `most`, where there is one."""
    import torch

    free: dict[str, Any] = {}
    if most is not None:
        count = torch.export.Dim("frames", min=1, max=most)
        free = {"dynamic_shapes": tuple({0: count} for _ in example)}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(graph, example, **free)
    except Exception as error:  # of any kind: it runs the model's own code
        reason = " ".join(str(error).split())[:240] or type(error).__name__
        raise EngineError(f"{name} can't be exported: {reason}; use engine eager") from error


def _timings(flavour: Flavour) -> AbstractContextManager[Path]:
    """Where a build's timings of kernels go; TensorRT-RTX times none."""
    if flavour == "tensorrt-rtx":
        return nullcontext(Path(os.devnull))
    import torch

    from engines.trt_timings import kept_timings

    return kept_timings(trt_version(load_trt(flavour)), torch.cuda.get_device_name())

"""From an ONNX file to a plain TensorRT engine, by TensorRT's own parser. Needs no torch.

The way for machines where torch or Torch-TensorRT can't be had, as NVIDIA Jetson: the file is
exported anywhere (`nem-stream export`), the engine is built on the machine that runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines.alone import alone
from engines.errors import EngineError, EngineUnavailable, OptionError
from engines.gpus import find_gpus
from engines.onnx_passes import CLASSES, FRAMES, OVERLAY
from engines.trt_api import load_trt, make_logger, trt_version
from engines.trt_build import BuildOptions, Say
from engines.trt_quant import QUANTISED
from engines.trt_timings import kept_timings

TYPES = {"f32": "FLOAT", "f16": "HALF", "bf16": "BF16"}
"""TensorRT's names of the precisions."""


def build_from_onnx(onnx: bytes | Path, options: BuildOptions, say: Say | None = None) -> bytes:
    """Compile an ONNX file of this project for the current GPU.

    Inputs and outputs of the engine are those of the file, by the same names. Sizes that the file
    leaves free are fixed by `options`, but for a dynamic engine's number of frames; those it has
    must be the ones asked for. TensorRT takes types from the file, so it must be one of
    `options.precision`, and it draws an overlay or not.

    Args:
        onnx: the file, or its content.
        options: what to build.
        say: told in a line what is being done; default nobody.

    Returns:
        The serialized engine.

    Raises:
        OptionError: the file is for another frame size, batch or precision, or leaves the frame
            size free and `options` has none, or has one batch and a dynamic engine is asked for,
            or has no overlay, or one that nobody asked for.
        EngineUnavailable: no TensorRT of this flavour, one too old, or no GPU.
        EngineError: the file can't be read, or TensorRT refuses it; says why.
    """
    tell = say or (lambda _: None)
    if options.precision in QUANTISED:
        raise OptionError(f"through ONNX: precision {options.precision}, use f16 or f32")
    trt = load_trt(options.flavour)
    name, content = _read(onnx)
    logger = make_logger(trt)
    builder, network = _network(trt, logger, options)
    tell(f"reading {name}")
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        refused = parser.get_error(0).desc() if parser.num_errors else logger.text()
        reason = " ".join(refused.split())[:300] or "no reason given"
        raise EngineError(
            f"{name}: TensorRT {trt_version(trt)} can't read it: {reason}; export it again, or "
            "use a newer TensorRT"
        )
    for port in _each(network.num_inputs, network.get_input):
        port.shape = _fixed(port.name, tuple(port.shape), options, name)
    _check(trt, network, options, name)
    config = _configured(trt, builder, options)
    if options.dynamic:
        config.add_optimization_profile(_profile(builder, network, options.batch))
    frames = _named(network.num_inputs, network.get_input)[FRAMES]
    tell(
        f"building {name} for frames of {frames.shape[2]}x{frames.shape[1]}, "
        f"batch {options.frames}, {options.precision} with {options.flavour}: may take minutes"
    )
    logger.clear()
    with alone, _timings(trt, config, options):
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise EngineError(
                f"{name}: TensorRT can't compile it: {logger.text() or 'no reason given'}; use "
                "another precision, or a newer TensorRT"
            )
    return bytes(engine)


def _read(onnx: bytes | Path) -> tuple[str, bytes]:
    """A name for messages, and the file's content."""
    if isinstance(onnx, bytes):
        return "graph", onnx
    try:
        return str(onnx), Path(onnx).read_bytes()
    except OSError as error:
        raise EngineError(f"{onnx}: can't be read: {error.strerror or error}") from error


def _network(trt: Any, logger: Any, options: BuildOptions) -> tuple[Any, Any]:
    """A builder and an empty network whose types are those of the graph."""
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    if typed is None:
        raise EngineUnavailable(
            f"{options.flavour} {trt_version(trt)} found, 10 or newer needed; on NVIDIA Jetson it "
            "comes with JetPack 6"
        )
    try:
        builder = trt.Builder(logger)
    except (RuntimeError, TypeError) as error:  # the binding's way to say that it got none
        reason = logger.text() or " ".join(str(error).split())[:200]
        raise EngineUnavailable(
            f"{options.flavour} can't build here: {reason}; it needs the GPU and its driver"
        ) from error
    return builder, builder.create_network(1 << int(typed))


def _fixed(port: str, shape: tuple[int, ...], options: BuildOptions, name: str) -> tuple[int, ...]:
    """The shape of an input, the free sizes filled in."""
    asked: tuple[int, ...]
    batch = -1 if options.dynamic else options.batch
    if port == FRAMES and len(shape) == 4:
        asked = (batch, *(options.frame_size or shape[1:3]), 3)
        if -1 in asked[1:]:
            raise OptionError(f"{name}: takes frames of any size; say which it is to be built for")
    elif port == CLASSES and len(shape) == 1:
        asked = (batch,)
    else:
        raise EngineError(
            f"{name}: input {port} of shape {shape}, expected {FRAMES} (N, H, W, 3) and {CLASSES} "
            "(N,); use a file made by nem-stream export"
        )
    if any(size not in (-1, wanted) for size, wanted in zip(shape, asked, strict=True)):
        raise OptionError(
            f"{name}: takes {port} of shape {shape}, asked for is {asked}; ask for the former, or "
            "export the file for the latter"
        )
    return asked


def _check(trt: Any, network: Any, options: BuildOptions, name: str) -> None:
    """Whether the file is what `options` say of it."""
    ports = _named(network.num_inputs, network.get_input)
    if FRAMES not in ports:
        raise EngineError(f"{name}: has no input {FRAMES}; use a file made by nem-stream export")
    drawn = OVERLAY in _named(network.num_outputs, network.get_output)
    if drawn != options.overlay:
        raise OptionError(
            f"{name}: overlay {'not ' if drawn else ''}asked for, but the file draws "
            f"{'one' if drawn else 'none'}; export another file"
        )
    for layer in _each(network.num_layers, network.get_layer):
        if layer.type == trt.LayerType.CONVOLUTION:
            found = layer.get_output(0).dtype
            if found.name != TYPES[options.precision]:
                names = {theirs: ours for ours, theirs in TYPES.items()}
                raise OptionError(
                    f"{name}: computes in {names.get(found.name, found.name)}, asked for is "
                    f"{options.precision}; ask for the former, or export the file in the latter"
                )
            return


def _profile(builder: Any, network: Any, most: int) -> Any:
    """Any number of frames from 1, fastest for `most`."""
    profile = builder.create_optimization_profile()
    for port in _each(network.num_inputs, network.get_input):
        least, largest = ((count, *tuple(port.shape)[1:]) for count in (1, most))
        profile.set_shape(port.name, least, largest, largest)
    return profile


def _configured(trt: Any, builder: Any, options: BuildOptions) -> Any:
    config = builder.create_builder_config()
    if options.workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.precision == "f32":
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)  # the user has one: no code in data
    return config


@contextmanager
def _timings(trt: Any, config: Any, options: BuildOptions) -> Iterator[None]:
    """Let the build read and write timings of kernels; TensorRT-RTX times none."""
    if options.flavour == "tensorrt-rtx":
        yield
        return
    try:
        gpu = find_gpus()[0].name
    except EngineUnavailable:  # nobody to ask, as on some Jetsons
        gpu = "gpu"
    with kept_timings(trt_version(trt), gpu) as path:
        known = path.read_bytes() if path.exists() else b""
        if not config.set_timing_cache(config.create_timing_cache(known), False):
            config.set_timing_cache(config.create_timing_cache(b""), False)  # another GPU's
        yield
        path.write_bytes(config.get_timing_cache().serialize())


def _each(count: int, get: Any) -> Iterator[Any]:
    return (get(index) for index in range(count))


def _named(count: int, get: Any) -> dict[str, Any]:
    return {port.name: port for port in _each(count, get)}

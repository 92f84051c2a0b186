"""A bundle as one file for other programs: ONNX, OpenVINO IR, or a TensorRT engine.

The file needs nothing of this project to run. Its inputs and outputs are those of the graph, see
`engines.graph.FrameGraph`. Files are written in a folder beside, then renamed: never half a file.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

from engines.errors import EngineError, EngineUnavailable, ExportError, OptionError
from engines.registry import PRECISION_NAMES
from nem.bundle import Bundle
from nem.manifest import GRAPH, MANIFEST, WEIGHTS

Format = Literal["onnx", "tensorrt", "openvino"]
FORMATS: tuple[Format, ...] = get_args(Format)

SUFFIXES: dict[Format, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "openvino": (".bin", ".xml"),
    "tensorrt": (".json", ".engine"),
}
"""Suffixes of a format's files in the order they get their names; what the user names is last."""

PRECISIONS: dict[Format, tuple[str, ...]] = {
    "onnx": ("f32", "f16"),
    "openvino": ("f32", "f16"),
    "tensorrt": ("f16", "f32", "bf16"),
}
"""Precisions of a format, its default first."""

FACTS = "nem"
"""Where ONNX metadata and the IR's runtime information hold the facts, as JSON."""

LARGEST = 16384
"""Longest side of a frame in pixels; a larger one is a typing error."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Wish:
    bundle: Bundle
    precision: str
    frame_size: tuple[int, int] | None
    batch: int
    say: Say

    @property
    def size(self) -> tuple[int, int]:
        return self.frame_size or (self.bundle.manifest.input_size,) * 2


def export_file(
    bundle: Bundle,
    path: Path,
    format: Format,
    *,
    precision: str = "auto",
    frame_size: tuple[int, int] | None = None,
    batch: int = 1,
    overwrite: bool = False,
    say: Say | None = None,
) -> list[Path]:
    """Write a bundle's graph, all heads in it, as a file for other programs.

    `onnx`: with a frame size, or in f16, a graph of fixed sizes that computes in `precision`
    (needs the extra `train`); else the bundle's own graph as it is, which takes frames of any
    size and number. `openvino`: IR, `.xml` and `.bin`; f16 is how weights are stored. `tensorrt`:
    an engine for this machine's GPU and TensorRT, and beside it a `.json` with what its user has
    to know (inputs, outputs, classes, versions, GPU, hash).

    Args:
        bundle: an opened bundle.
        path: the file, with the format's suffix: `.onnx`, `.xml`, `.engine`.
        format: of `FORMATS`.
        precision: of the format's `PRECISIONS`; "auto" is the first of them; "fp32" and "fp16" are
            f32 and f16.
        frame_size: (height, width) of the frames. None: any size where the format has that, else
            the model's input size.
        batch: frames of one run, where sizes are fixed.
        overwrite: replace files that are there.
        say: told in a line what is being done; default nobody.

    Returns:
        The files written, the named one first.

    Raises:
        OptionError: a format, precision, size or suffix that isn't allowed.
        EngineUnavailable: a package, or for `tensorrt` the GPU, is missing.
        ExportError: a file is there already, or can't be written.
        EngineError: the graph can't be exported, or what was made computes something else.
        BundleError: the bundle's model can't be built.
    """
    path = Path(path)
    wish = _checked(bundle, path, format, precision, frame_size, batch, say)
    files = [path.with_suffix(suffix) for suffix in SUFFIXES[format]]
    own = {(bundle.path / name).resolve() for name in (MANIFEST, *bundle.manifest.files)}
    for file in files:
        if file.is_dir():
            raise ExportError(f"{file}: is a folder; give another name")
        if file.resolve() in own:
            raise ExportError(f"{file}: is the bundle's own; give another name")
        if file.exists() and not overwrite:
            raise ExportError(f"{file}: exists already; pass --overwrite or another name")
    if not path.parent.is_dir():
        raise ExportError(f"{path}: there is no folder {path.parent}; make it first")
    try:
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", suffix=".partial", dir=path.parent
        ) as folder:
            staged = Path(folder) / path.name
            _WRITERS[format](wish, staged)
            for file in files:
                staged.with_suffix(file.suffix).replace(file)
    except OSError as error:
        raise ExportError(f"{path}: can't be written: {error.strerror or error}") from error
    return files[::-1]


def _checked(
    bundle: Bundle,
    path: Path,
    format: Format,
    precision: str,
    frame_size: tuple[int, int] | None,
    batch: int,
    say: Say | None,
) -> _Wish:
    """The wish, with "auto" replaced. Raises OptionError."""
    if format not in FORMATS:
        raise OptionError(f"format {format!r}, allowed: {', '.join(FORMATS)}")
    suffix = SUFFIXES[format][-1]
    if path.suffix != suffix:
        raise OptionError(f"{path}: a file of format {format} ends in {suffix}; give such a name")
    try:
        str(path).encode()
    except UnicodeEncodeError:  # of bytes that are no UTF-8
        raise OptionError(f"{str(path)!a}: runtimes can't open such names; give another") from None
    allowed, precision = PRECISIONS[format], PRECISION_NAMES.get(precision, precision)
    if precision not in ("auto", *allowed):
        raise OptionError(
            f"format {format}: precision {precision!r}, allowed: {', '.join(('auto', *allowed))}"
        )
    precision = allowed[0] if precision == "auto" else precision
    if frame_size is not None and not all(1 <= side <= LARGEST for side in frame_size):
        raise OptionError(f"frame size {frame_size}: height and width from 1 to {LARGEST}")
    if batch < 1:
        raise OptionError(f"batch {batch}: at least 1")
    free = frame_size is None and (format == "openvino" or (format, precision) == ("onnx", "f32"))
    if free and batch != 1:
        raise OptionError(
            f"batch {batch}: without a frame size the graph takes any number of frames; "
            "leave batch out, or give a frame size"
        )
    return _Wish(bundle, precision, frame_size, batch, say or (lambda _: None))


def _write_onnx(wish: _Wish, path: Path) -> None:
    if wish.frame_size is not None or wish.precision != "f32":
        for package in ("torch", "timm"):
            if importlib.util.find_spec(package) is None:
                raise EngineUnavailable(
                    f"a graph of fixed sizes or in f16 needs {package}, which is not installed: "
                    "pip install 'nem-stream[train]'; without it there is the f32 graph of any size"
                )
        from engines.onnx_fixed import export_fixed
        from nem.bundle_io import load_model

        (height, width), batch = wish.size, wish.batch
        wish.say(f"exporting the graph for {batch} x {width}x{height} in {wish.precision}")
        export_fixed(
            load_model(wish.bundle),
            path,
            frame_size=wish.size,
            precision=wish.precision,
            batch=batch,
            notes={FACTS: json.dumps(_facts(wish, wish.size))},
        )
        return
    path.write_bytes(wish.bundle.read(GRAPH))
    if all(importlib.util.find_spec(name) for name in ("torch", "timm", "onnx", "onnxruntime")):
        from engines.export import check_onnx
        from engines.graph import FrameGraph
        from nem.bundle_io import load_model

        wish.say("comparing with torch")
        check_onnx(path, FrameGraph(load_model(wish.bundle)).eval())


def _write_openvino(wish: _Wish, path: Path) -> None:
    try:
        from engines.ov_graph import cut_resize, fix_sizes
        from engines.ov_runtime import openvino as ov
    except (ImportError, OSError) as error:
        raise EngineUnavailable(
            f"format openvino: OpenVINO does not load ({error}); pip install nem-stream"
        ) from error
    wish.say(f"writing OpenVINO IR, weights in {wish.precision}")
    try:
        model = ov.Core().read_model(wish.bundle.read(GRAPH))
        if wish.frame_size is not None:
            if wish.frame_size == (wish.bundle.manifest.input_size,) * 2:
                cut_resize(model)  # as an identity it would still cost time
            fix_sizes(model, wish.batch, wish.frame_size)
        model.set_rt_info(json.dumps(_facts(wish, wish.frame_size)), FACTS)
        ov.save_model(model, path, compress_to_fp16=wish.precision == "f16")
    except RuntimeError as error:
        raise EngineError(
            f"{wish.bundle.graph_path}: OpenVINO can't write it: {' '.join(str(error).split())}"
        ) from None


def _write_tensorrt(wish: _Wish, path: Path) -> None:
    from engines.export_engine import write_engine

    write_engine(
        wish.bundle,
        path,
        frame_size=wish.size,
        precision=wish.precision,
        batch=wish.batch,
        facts=_facts(wish, wish.size),
        say=wish.say,
    )


def _facts(wish: _Wish, size: tuple[int, int] | None) -> dict[str, Any]:
    """What a user of the file has to know; `size` None: frames of any size and number."""
    manifest = wish.bundle.manifest
    try:
        release = version("nem-stream")
    except PackageNotFoundError:  # run from its source folder
        release = "unknown"
    return {
        "bundle": manifest.name,
        "backbone": manifest.backbone.name,
        "graph_sha256": manifest.files[GRAPH],
        "weights_sha256": manifest.files[WEIGHTS],
        "aims": list(manifest.heads),
        "classes": list(manifest.classes),
        "input_size": [manifest.input_size] * 2,
        "frame_size": None if size is None else list(size),
        "batch": None if size is None else wish.batch,
        "precision": wish.precision,
        "versions": {"nem-stream": release},
    }


_WRITERS: dict[Format, Callable[[_Wish, Path], None]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "tensorrt": _write_tensorrt,
}

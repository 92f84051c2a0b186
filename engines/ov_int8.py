"""int8 for OpenVINO, by NNCF: it finds ranges on pictures and puts the rounding into the graph.

The rounded graph is what is kept in the store: it takes minutes to make and no time to compile.
Importing this loads no NNCF.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich
from numpy.typing import NDArray

from engines.base import Frames
from engines.calibration import Pictures
from engines.errors import EngineError, EngineUnavailable, StoreError
from engines.golden import decided
from engines.onnx_passes import CLASSES, FRAMES, SCORES
from engines.ov_graph import INT8, has_port, make_config
from engines.ov_runtime import REPORTER
from engines.ov_runtime import openvino as ov
from engines.parity import Answer
from engines.quant_check import HeldOut
from engines.quiet_logs import hidden, quiet_logs
from nem.explanation import Aim
from nem.manifest import Manifest

INSTALL = "pip install 'nem-stream[int8]'"

FINEST = 4
"""Input pixels per pixel of the finest maps that are rounded, as in `engines.quant_graph`."""

HEADS = 16
"""Convolutions with fewer outputs draw maps: they stay as they are, and cost next to nothing."""

NOISY = ("nncf", "torch.utils.cpp_extension")
"""Loggers of NNCF and of what it imports."""


def make_int8(
    core: Any,
    model: Any,
    plain: str,
    pictures: Pictures,
    manifest: Manifest,
    say: Callable[[str], None],
) -> Any:
    """A graph in int8 where that pays and does no harm, which explains as the exact one does.

    The first layers, what draws or enlarges maps and what computes with classes stay as they are.

    Args:
        core: OpenVINO's.
        model: OpenVINO's, for one frame of the model's own size.
        plain: what is not rounded is computed in, "f32" or "bf16".
        pictures: of that size: to find ranges on, and others to compare by.
        manifest: of the bundle.
        say: told in a line what is done.

    Returns:
        Another model of OpenVINO.

    Raises:
        EngineUnavailable: NNCF is missing or does not load.
        EngineError: NNCF can't do it, or masks move too far.
    """
    say(f"finding ranges for int8 on {len(pictures.frames)} pictures: takes a minute or more")
    # Not those of the manifest, which may have no names for them.
    classes = model.output(SCORES).shape[1] if has_port(model.outputs, SCORES) else 0
    rounded = round_graph(model, pictures, classes)
    fault = _fault(core, rounded, model, plain, pictures, manifest.heads)
    if fault is not None:
        raise EngineError(
            f"engine openvino: in int8 {manifest.name} explains otherwise: {fault}; use another "
            "precision, or calibrate with more of what will be looked at"
        )
    return rounded


def round_graph(model: Any, pictures: Pictures, classes: int) -> Any:
    """What NNCF makes of a graph with so many classes; arguments and errors as `make_int8`."""
    nncf = load_nncf()
    targeted = has_port(model.inputs, CLASSES)

    def feed(frame: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        given: dict[str, NDArray[Any]] = {FRAMES: frame[None]}
        return given | ({CLASSES: np.array([-1])} if targeted else {})

    left = nncf.IgnoredScope(names=_left(model, classes))
    try:
        with quiet():
            return nncf.quantize(
                model,
                nncf.Dataset(list(pictures.frames), feed),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(pictures.frames),
                ignored_scope=left,
            )
    except Exception as error:  # of any kind: it is NNCF's own business
        reason = " ".join(str(error).split())[:200]
        raise EngineError(
            f"engine openvino: NNCF can't round this model to int8: {reason}; use another precision"
        ) from error


def _left(model: Any, classes: int) -> list[str]:
    """Names of the operations that are not rounded."""
    side = next(port.shape[1] for port in model.inputs if FRAMES in port.get_names())
    names = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind in ("Convolution", "GroupConvolution"):
            _, channels, height, _ = node.output(0).shape
            if height * FINEST > side or channels < HEADS:
                names.append(node.get_friendly_name())
        elif kind == "MatMul":
            shapes = [tuple(node.input_value(place).get_shape()) for place in (0, 1)]
            enlarges = sorted(map(len, shapes)) == [2, 4]
            if enlarges or (classes and any(classes in shape for shape in shapes)):
                names.append(node.get_friendly_name())
    return names


def _fault(
    core: Any, rounded: Any, exact: Any, plain: str, pictures: Pictures, aims: Sequence[Aim]
) -> str | None:
    """Why a rounded graph explains otherwise than the exact one; None where it is in the bound."""
    one, other = _runner(core, rounded, plain), _runner(core, exact, "f32")
    answers = [other(frame[None], None) for frame in pictures.held_out]
    expected = {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}

    def run(frames: Frames, right: Answer) -> Answer:
        return one(frames, decided(right))

    held_out = HeldOut(pictures.held_out, expected)
    return held_out.wrong(run, 1, aims, engine="openvino", precision=INT8)


def _runner(core: Any, model: Any, precision: str) -> Callable[..., dict[str, NDArray[np.float32]]]:
    """Calls a graph: frames (1, S, S, 3) and the class to explain, to outputs by name."""
    request = core.compile_model(model, "CPU", make_config(precision)).create_infer_request()

    def run(frames: Frames, classes: NDArray[np.int64] | None) -> dict[str, NDArray[np.float32]]:
        request.set_tensor(FRAMES, ov.Tensor(np.ascontiguousarray(frames)))
        if has_port(model.inputs, CLASSES):
            request.get_tensor(CLASSES).data[:] = -1 if classes is None else classes
        request.infer()
        ports = request.get_compiled_model().outputs
        return {p.get_any_name(): np.array(request.get_tensor(p).data, np.float32) for p in ports}

    return run


def dump_graph(model: Any) -> bytes:
    """A model of OpenVINO as bytes: the length of its description, that, and its weights."""
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "graph.xml", Path(folder) / "graph.bin"
        ov.serialize(model, xml, weights)
        words = xml.read_bytes()
        return len(words).to_bytes(8, "little") + words + weights.read_bytes()


def load_graph(core: Any, blob: bytes) -> Any:
    """The model that `dump_graph` wrote.

    Raises:
        StoreError: OpenVINO can't read it.
    """
    end = 8 + int.from_bytes(blob[:8], "little")
    try:
        weights = ov.Tensor(np.frombuffer(blob[end:], np.uint8))
        return core.read_model(blob[8:end], weights)
    except RuntimeError as error:
        raise StoreError(f"OpenVINO can't read it: {' '.join(str(error).split())[:120]}") from None


def load_nncf() -> Any:
    """The module `nncf`, which says nothing and reports nothing over the network.

    Raises:
        EngineUnavailable: it is missing, or does not load.
    """
    try:
        with quiet(), hidden(REPORTER):
            return importlib.import_module("nncf")
    except Exception as error:  # of any kind where a library is broken
        missing = isinstance(error, ModuleNotFoundError) and error.name == "nncf"
        reason = "nncf is not installed" if missing else f"nncf does not load ({error})"
        raise EngineUnavailable(
            f"engine openvino: precision int8 needs NNCF, {reason}: {INSTALL}"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """NNCF draws progress on stdout, which carries data only, and has much to say.

    It draws on Rich's common console, which others may have turned to stderr.
    """
    console = rich.get_console()
    was_quiet, console.quiet = console.quiet, True
    try:
        with contextlib.redirect_stdout(io.StringIO()), quiet_logs(*NOISY):
            yield
    finally:
        console.quiet = was_quiet

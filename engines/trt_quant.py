"""Engines that multiply in 8 bits, int8 or fp8, by NVIDIA's Model Optimizer.

TensorRT takes 8 bits only from operators in the graph that say where to round and by how much.
Model Optimizer (`modelopt`) puts them around the convolutions and linears of backbone and decoder
and measures on pictures how large the numbers there get. The rest computes in f16 as it would
without. Importing this loads neither torch nor modelopt.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

from engines.calibration import check_given
from engines.changes import reinstall
from engines.errors import EngineUnavailable, OptionError
from engines.trt_api import Flavour

BASE = "f16"
"""Precision of all that is not quantised."""

FORMATS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Weights have one range per output channel, as that costs int8 nothing and loses least.
    "int8": ({"num_bits": 8, "axis": 0}, {"num_bits": 8, "axis": None}),
    # 4 bits of exponent, 3 of mantissa; TensorRT's converter takes one range per tensor.
    "fp8": ({"num_bits": (4, 3), "axis": None}, {"num_bits": (4, 3), "axis": None}),
}
"""How weights and inputs are rounded, by precision, in modelopt's words."""

QUANTISED = tuple(FORMATS)
"""Precisions of 8 bits."""

LAYERS = ("nn.Conv2d", "nn.Linear")
"""What is quantised, by modelopt's names."""

OLDEST = (0, 45)
"""The first modelopt whose configurations are lists."""

INSTALL = "pip install 'nem-stream[quantize]'"


def check_quantised(flavour: Flavour, precision: str, calibration: object | None) -> None:
    """Refuse what does not go together.

    Args:
        flavour: of TensorRT.
        precision: any.
        calibration: where pictures are, or pictures; None where none are given.

    Raises:
        OptionError: they don't; says what to do.
    """
    if precision == "int8" and flavour == "tensorrt-rtx":
        raise OptionError(
            "precision int8 asked for tensorrt-rtx, which refuses int8 activations; use "
            "tensorrt, or fp8"
        )
    check_given(precision, QUANTISED, calibration)


def load_modelopt() -> Any:
    """The module `modelopt.torch.quantization`.

    Raises:
        EngineUnavailable: it is missing, too old, or does not load; says the cure.
    """
    what = "quantising with modelopt"
    try:
        with quiet():
            module = importlib.import_module("modelopt.torch.quantization")
            importlib.import_module("modelopt.torch.quantization.utils")
            version = str(importlib.import_module("modelopt").__version__)
    except Exception as error:  # of any kind where one of its many packages does not fit
        name = str(getattr(error, "name", None))
        missing = isinstance(error, ModuleNotFoundError)
        reason = f"{'modelopt' if name.startswith('modelopt') else name} is not installed"
        if not missing:
            reason = f"it does not load ({' '.join(str(error).split())[:200]}); reinstall it"
        cure = INSTALL if missing else reinstall("nvidia-modelopt")
        raise EngineUnavailable(f"{what}: {reason}: {cure}") from error
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        raise EngineUnavailable(
            f"{what}: {version} is installed, {'.'.join(map(str, OLDEST))} or newer is needed: "
            f"{INSTALL} --upgrade"
        )
    return module


@contextlib.contextmanager
def exporting(precision: str) -> Iterator[None]:
    """Within it a quantised graph can be exported; of other precisions nothing is changed."""
    if precision not in QUANTISED:
        yield
        return
    load_modelopt()
    utils = importlib.import_module("modelopt.torch.quantization.utils")
    with utils.export_torch_mode(), _without_compiler():
        yield


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Within it modelopt rounds in torch.

    Torch-TensorRT, looking for constants, rounds weights by modelopt, which for that compiles
    operators with nvcc; without one it fails. What it finds there is thrown away.
    """
    inside = importlib.import_module("modelopt.torch.quantization.tensor_quant")
    instead = {"fake_quant_impl": inside._tensor_quant, "get_cuda_ext_fp8": lambda **_: None}
    before = {name: getattr(inside, name) for name in instead}
    vars(inside).update(instead)
    try:
        yield
    finally:
        vars(inside).update(before)


def make_config(precision: str, kept: list[str]) -> dict[str, Any]:
    """What modelopt is asked for; later entries overrule earlier ones.

    Args:
        precision: of `QUANTISED`.
        kept: names of modules that are not quantised, nor anything in them.
    """
    weights, inputs = FORMATS[precision]
    rules: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for layer in LAYERS:
        for part, form in (("*weight_quantizer", weights), ("*input_quantizer", inputs)):
            rules.append({"quantizer_name": part, "parent_class": layer, "cfg": dict(form)})
    rules += [{"quantizer_name": f"{name}.*", "enable": False} for name in kept]
    return {"quant_cfg": rules, "algorithm": "max"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it nothing is printed or warned of: modelopt tells what it does."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

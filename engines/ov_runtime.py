"""OpenVINO, imported so that it stays silent.

`import openvino` by itself reports every import over the network and starts a thread for it. A
program that sees a camera must not do that, so the reporting package is hidden while OpenVINO is
imported, which then uses the stub it has for that case. Import OpenVINO through this module only.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_REPORTER = "openvino_telemetry"


def _import() -> Any:
    if _REPORTER in sys.modules:  # somebody else imported OpenVINO first: theirs to decide
        return importlib.import_module("openvino")
    sys.modules[_REPORTER] = None  # type: ignore[assignment]  # makes its import fail
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_REPORTER]


openvino: Any = _import()

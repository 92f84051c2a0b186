"""OpenVINO, imported so that it stays silent.

`import openvino` by itself reports every import over the network and starts a thread for it. A
program that sees a camera must not do that, so the reporting package is hidden while OpenVINO is
imported, which then uses the stub it has for that case. Import OpenVINO through this module only.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from engines.quiet_logs import hidden

REPORTER = "openvino_telemetry"

with hidden(REPORTER):  # unless somebody else imported OpenVINO first: theirs to decide
    openvino: Any = importlib.import_module("openvino")

# The first look into a tensor loads NumPy's interface under a lock, and lets go of Python's own
# meanwhile: two threads that look for the first time at once would wait for each other for ever.
_looked_into = openvino.Tensor(np.zeros(1, np.uint8)).data

"""OpenVINO as this project imports it."""

from __future__ import annotations

import subprocess
import sys

FIRST_LOOKS = """
import importlib.abc, importlib.machinery, sys, threading, time
from engines.ov_runtime import openvino as ov
import openvino.opset13 as ops

NAME = "numpy._core.multiarray"
kept = sys.modules.pop(NAME)

class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == NAME else None
    def create_module(self, spec):
        time.sleep(0.5)
        return kept
    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Slow())
given = ops.parameter([4], ov.Type.f32)
model = ov.Core().compile_model(ov.Model([ops.relu(given)], [given]), "CPU")
requests = [model.create_infer_request() for _ in range(2)]
threads = [
    threading.Thread(target=lambda r=r: r.input_tensors[0].data, daemon=True) for r in requests
]
for thread in threads:
    thread.start()
    time.sleep(0.1)
for thread in threads:
    thread.join()
"""
"""Two threads that look into a tensor, the second while the first would load NumPy's interface.

That is made slow. A process in which they wait for each other does nothing any more.
"""


def test_threads_may_look_into_tensors_for_the_first_time_at_once() -> None:
    ran = subprocess.run([sys.executable, "-c", FIRST_LOOKS], timeout=60, capture_output=True)
    assert ran.returncode == 0, ran.stderr

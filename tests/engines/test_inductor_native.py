"""What compilers do to the process: AOTInductor has to live with their libraries."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engines.fixed_graph import FixedGraph
from engines.inductor_build import build_package
from tests.engines.conftest import tiny_model
from tests.native import signal_stack

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="signal stacks and symbols are Linux's"
)


def test_building_leaves_the_signal_stack_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM, which Triton compiles with, gives the thread its own."""
    before, own = signal_stack(), ctypes.create_string_buffer(1 << 16)

    def compile_(*_: object) -> bytes:
        stack = ctypes.create_string_buffer(struct.pack("PiN", ctypes.addressof(own), 0, len(own)))
        ctypes.CDLL(None).sigaltstack(stack, None)
        assert signal_stack() == ctypes.addressof(own)
        return b"package"

    monkeypatch.setattr("engines.inductor_build._compile", compile_)
    graph = FixedGraph(tiny_model(), precision="f32")
    assert build_package(graph, 1, torch.device("cpu"), lambda _: None) == b"package"
    assert signal_stack() == before


REGEX = """
#include <regex>
#include <string>
extern "C" int matches(const char* text) {
    return std::regex_match(std::string(text), std::regex("(cpu|cuda)(:([0-9]+))?"));
}
"""


def test_what_carries_its_own_copy_of_the_c_plus_plus_library_runs(tmp_path: Path) -> None:
    """As packages do that were linked by a compiler which prefers the static library."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    source, library = tmp_path / "regex.cpp", tmp_path / "regex.so"
    source.write_text(REGEX)
    made = [compiler, "-shared", "-fPIC", "-static-libstdc++", str(source), "-o", str(library)]
    subprocess.run(made, check=True)
    code = (
        "import ctypes, torch\n"
        "from engines.inductor_run import share_cpp_runtime\n"
        "share_cpp_runtime()\n"
        f"matches = ctypes.CDLL({str(library)!r}).matches\n"
        "print(matches(b'cuda:0'), matches(b'gpu'))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.stdout, found.returncode) == ("1 0\n", 0), found.stderr

"""The one-way arrow, the size of modules, the live path without torch, and honest `__all__`s."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["nem", "engines", "stream", "scripts"]
MOST_LINES = 300


def modules(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Names of all modules imported anywhere in a file, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            found.add(node.module)
    return found


def test_imports_run_one_way():
    for index, layer in enumerate(LAYERS):
        above = {*LAYERS[index + 1 :], "tests"}
        for path in modules(layer):
            upward = sorted(name for name in imports(path) if name.split(".")[0] in above)
            assert upward == [], f"{name_of(path)} imports {upward}"


def test_the_stream_never_imports_torch():
    heavy = {"torch", "torchvision", "timm", "lightning"}
    for path in modules("stream"):
        found = {name.split(".")[0] for name in imports(path)} & heavy
        assert found == set(), f"{name_of(path)} imports {found}"


def test_modules_stay_readable_in_one_sitting():
    for path in modules(*LAYERS, "tests"):
        lines = len(path.read_text().splitlines())
        said = f"{name_of(path)} has {lines} lines, allowed {MOST_LINES}; split it"
        assert lines <= MOST_LINES, said


def test_test_folders_are_packages():
    folders = {path.parent for path in modules("tests")}
    assert [f for f in folders if not (f / "__init__.py").exists()] == []  # else it hides the real


def loaded_after(statement):
    """Names of all modules loaded by a fresh interpreter that runs `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import nem, nem.bundle, nem.errors", {"torch", "timm", "cv2", "av", "openvino"}),
        ("import engines", {"torch", "timm", "openvino"}),
        ("import stream", {"torch", "openvino", "cv2", "av", "numpy"}),
        ("import stream; stream.Explainer, stream.explain", {"torch", "openvino"}),
        ("import stream.cli", {"torch", "openvino", "cv2", "av", "numpy"}),
        (
            "from stream.cli import main\nimport contextlib, io\n"
            "with contextlib.redirect_stdout(io.StringIO()): main(['run', '--help'])",
            {"torch", "openvino", "cv2", "av"},
        ),
    ],
)
def test_what_an_import_loads(statement, forbidden):
    assert loaded_after(statement) & forbidden == set()


@pytest.mark.parametrize("package", ["nem", "engines", "stream", "stream.sources", "stream.sinks"])
def test_public_names_exist(package):
    module = importlib.import_module(package)
    names = getattr(module, "__all__", [])
    assert len(names) == len(set(names)) <= 40
    missing = [name for name in names if not hasattr(module, name)]
    assert missing == []

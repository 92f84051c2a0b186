"""docs/edge.md and docs/edge/: what they tell people to type exists, and the examples run."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import click
import cv2
import numpy as np
import pytest
import typer.main

import engines.trt_onnx
import engines.trt_runner
from engines import export_file
from engines.export_files import FORMATS, SUFFIXES
from engines.trt_build import BuildOptions
from engines.trt_runner import Port, TrtRunner
from nem.bundle import open_bundle
from stream.cli.app import app

ROOT = Path(__file__).parents[1]
EDGE = ROOT / "docs" / "edge"
PAGE = (ROOT / "docs" / "edge.md").read_text(encoding="utf-8")
FILES = sorted(path for path in EDGE.iterdir() if path.is_file())
CODE = re.findall(r"```python\n(.+?)```", PAGE, re.S)
HEIGHT, WIDTH, COUNT = 48, 64, 5
ENGINE = b"an engine's bytes"


def commands() -> list[str]:
    """Every `nem-stream ...` that is named in the page or in a file."""
    found = re.findall(r"^nem-stream .+$", PAGE, re.M) + re.findall(r"`(nem-stream [^`]+)`", PAGE)
    for file in FILES:
        found += re.findall(r"`(nem-stream [^`]+)`", file.read_text(encoding="utf-8"))
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_commands_are_ours(command: str) -> None:
    """Each is parsed by the program itself: subcommand, options and their values' kinds."""
    arguments, group = shlex.split(command)[1:], typer.main.get_command(app)
    while isinstance(group, click.Group):
        assert arguments[0] in group.commands, f"no subcommand {arguments[0]}"
        group = group.commands[arguments.pop(0)]
    if arguments == []:
        return  # named, not told to be typed
    asked = group.make_context(group.name, arguments).params
    if group.name == "export":
        assert asked["format_"] in FORMATS
        if asked["output"] is not None:
            assert asked["output"].suffix == SUFFIXES[asked["format_"]][-1]


def test_commands_were_found() -> None:
    assert sum("export" in command for command in commands()) >= 4
    assert any(command.startswith("nem-stream engines build") for command in commands())


def test_extras_and_links_exist() -> None:
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"nem-stream\[([a-z-]+)\]", PAGE):
        assert re.search(rf"^{extra} = \[", extras, re.M), extra
    links = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert {f"edge/{file.name}" for file in FILES} <= set(links)


@pytest.mark.parametrize("name", ["Dockerfile.x86", "Dockerfile.jetson"])
def test_images_copy_what_is_there(name: str) -> None:
    text = (EDGE / name).read_text(encoding="utf-8")
    assert f"docker build -f docs/edge/{name} " in text
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M)
        for source in line.split()[:-1]
    ]
    assert {source for source in copied if source != "."} == {
        "docs/edge/embed.py",
        "docs/edge/embed_openvino.py",
    }
    assert all((ROOT / source).exists() for source in copied)
    assert re.search(r"^ARG BASE=nvcr\.io/nvidia/", text, re.M)
    assert not re.search(r"index-url|pypi|--trusted-host|curl|wget", text)


def test_the_outline_in_c_names_what_the_graph_has() -> None:
    text = (EDGE / "embed.cpp").read_text(encoding="utf-8")
    named = set(re.findall(r'(?:at|count)\("(\w+)"\)', text)) | set(
        re.findall(r'ports\["(\w+)"\]', text)
    )
    assert named == {"frames", "target", "mask_embedding"}
    assert "embedding" in open_bundle("nem-tiny").manifest.heads
    for call in ("deserializeCudaEngine(", "setTensorAddress(", "enqueueV3("):
        assert call in text


class Runner:
    """Stands in for TrtRunner: masks the left half, calls it class 7."""

    inputs: ClassVar = {
        "frames": Port("frames", (1, 20, 30, 3), np.dtype(np.uint8)),
        "target": Port("target", (1,), np.dtype(np.int32)),
    }
    outputs: ClassVar = {
        "mask_embedding": Port("mask_embedding", (1, 16, 16), np.dtype(np.float32)),
        "scores": Port("scores", (1, 10), np.dtype(np.float32)),
        "embedding": Port("embedding", (1, 4), np.dtype(np.float32)),
    }
    seen: ClassVar[list[dict[str, np.ndarray]]] = []
    closed = 0

    def __init__(self, *args: object, **options: object) -> None:
        bound = inspect.signature(TrtRunner).bind(*args, **options).arguments
        assert bound["engine"] == ENGINE

    def run(self, *args: object, **options: object) -> dict[str, np.ndarray]:
        bound = inspect.signature(TrtRunner.run).bind(self, *args, **options).arguments
        given, asked = bound["inputs"], bound.get("outputs")
        assert set(given) == set(self.inputs)
        for name, port in self.inputs.items():
            port.check(given[name])
        self.seen.append(given)
        found = {n: np.zeros(port.shape, port.dtype) for n, port in self.outputs.items()}
        found["mask_embedding"][:, :, :8] = 1
        found["scores"][0, 7] = 1
        return {name: found[name] for name in (self.outputs if asked is None else asked)}

    def close(self) -> None:
        assert inspect.signature(TrtRunner.close)
        type(self).closed += 1


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> type[Runner]:
    monkeypatch.setattr(engines.trt_runner, "TrtRunner", Runner)
    monkeypatch.setattr(Runner, "seen", [])
    monkeypatch.setattr(Runner, "closed", 0)
    return Runner


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A bright square that moves over grey."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (WIDTH, HEIGHT))
    for index in range(COUNT):
        frame = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
        frame[10:30, 5 + 6 * index : 25 + 6 * index] = (40, 200, 240)
        writer.write(frame)
    writer.release()
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    video, frames = cv2.VideoCapture(str(path)), []
    while (got := video.read())[0]:
        frames.append(got[1])
    return frames


def embed() -> SimpleNamespace:
    """What docs/edge/embed.py defines; nothing is written beside it."""
    return SimpleNamespace(**runpy.run_path(str(EDGE / "embed.py")))


def test_embed_runs_an_exported_engine(tmp_path: Path, clip: Path, runner: type[Runner]) -> None:
    engine, out = tmp_path / "nem.engine", tmp_path / "out.avi"
    engine.write_bytes(ENGINE)
    facts = {
        "sha256": hashlib.sha256(ENGINE).hexdigest(),
        "frame_size": [20, 30],
        "aims": ["embedding", "ranking"],
        "classes": [f"class {i}" for i in range(10)],
    }
    (tmp_path / "nem.json").write_text(json.dumps(facts))
    module = embed()
    pairs = list(module.explain(engine, cv2.VideoCapture(str(clip))))
    assert len(pairs) == len(runner.seen) == COUNT
    assert runner.closed == 1
    source = frames_of(clip)
    for (shown, best), frame in zip(pairs, source, strict=True):
        assert best == "class 7"
        np.testing.assert_array_equal(shown[:, :20], frame[:, :20])
        np.testing.assert_allclose(shown[:, -20:], frame[:, -20:] * 0.25, atol=1)
    small = cv2.resize(source[0], (30, 20), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(runner.seen[0]["frames"][0], small[..., ::-1])  # RGB
    assert runner.seen[0]["target"].tolist() == [-1]
    module.main(str(engine), str(clip), str(out))
    assert len(frames_of(out)) == COUNT
    with pytest.raises(SystemExit, match="can't be written"):
        module.main(str(engine), str(clip), str(tmp_path / "absent" / "out.avi"))
    engine.write_bytes(ENGINE + b"!")
    with pytest.raises(SystemExit, match="not the file that its"):
        module.main(str(engine), str(clip), str(out))


def test_embed_shows_a_ranking_by_its_order(
    tmp_path: Path, clip: Path, runner: type[Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a bundle trained with ra-nem alone has; its map is of any scale."""
    ranks = np.linspace(-40, 7, 16 * 16, dtype=np.float32).reshape(1, 16, 16)
    port = Port("mask_ranking", ranks.shape, ranks.dtype)
    monkeypatch.setattr(runner, "outputs", {"mask_ranking": port})
    monkeypatch.setattr(runner, "run", lambda *_: {"mask_ranking": ranks})
    (tmp_path / "nem.engine").write_bytes(ENGINE)
    facts = {"sha256": hashlib.sha256(ENGINE).hexdigest(), "frame_size": [20, 30], "classes": []}
    (tmp_path / "nem.json").write_text(json.dumps(facts | {"aims": ["ranking"]}))
    pairs = list(embed().explain(tmp_path / "nem.engine", cv2.VideoCapture(str(clip))))
    source = frames_of(clip)[0]
    kept = pairs[0][0].mean((1, 2)) / source.mean((1, 2))  # of each row, dimmest first
    np.testing.assert_allclose(kept[[0, HEIGHT // 2, -1]], [0.28, 0.63, 0.98], atol=0.03)


def test_the_openvino_loop_runs(tmp_path: Path, clip: Path) -> None:
    """For real: an exported IR, a clip in, a clip out."""
    model, out = tmp_path / "nem.xml", tmp_path / "out.avi"
    export_file(open_bundle("nem-tiny"), model, "openvino", frame_size=(HEIGHT, WIDTH))
    done = subprocess.run(
        [sys.executable, str(EDGE / "embed_openvino.py"), str(model), str(clip), str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(SystemExit, match="can't be written"):
        runpy.run_path(str(EDGE / "embed_openvino.py"))["main"](
            str(model), str(clip), str(tmp_path / "absent" / "out.avi")
        )
    found, source = frames_of(out), frames_of(clip)
    assert len(found) == COUNT
    assert found[0].shape == (HEIGHT, WIDTH, 3)
    below = [frame[32:].astype(int) for frame in (found[0], source[0])]  # where no text is
    assert below[0].mean() < 0.9 * below[1].mean()


def test_the_page_s_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: type[Runner]
) -> None:
    """Building is stood in for; what is written is what embed.py reads."""
    built: list[tuple[Path, BuildOptions]] = []

    def build(onnx: Path, options: BuildOptions, say: object = None) -> bytes:
        built.append((onnx, options))
        return ENGINE

    assert list(inspect.signature(build).parameters) == list(
        inspect.signature(engines.trt_onnx.build_from_onnx).parameters
    )
    monkeypatch.setattr(engines.trt_onnx, "build_from_onnx", build)
    monkeypatch.chdir(tmp_path)
    assert len(CODE) == 2
    for code in CODE:
        exec(compile(code, "docs/edge.md", "exec"), {})
    assert built[0][0] == Path("nem.onnx")
    data, facts = embed().load(tmp_path / "nem.engine")
    assert data == ENGINE
    assert facts["frame_size"] == list(built[0][1].frame_size or ())
    assert (len(runner.seen), runner.closed) == (1, 1)

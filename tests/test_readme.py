"""README and CI can't drift apart, and README names only options that exist."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from nem.bundle import open_bundle
from stream.sinks.scores import score_line
from tests.builders import make_clip, make_explanation, make_frame

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```\n(.+?)\n```", README, re.S)
    assert found, f"README.md has no block after <!-- {marker} -->"
    return found[1]


def test_install_lines_are_single_commands():
    assert len(block("run").splitlines()) == 1
    assert len(block("test").splitlines()) == 1


def test_ci_runs_the_readme_test_line():
    script = (ROOT / ".ci" / "run").read_text()
    body = script[script.index("line=$(") :].splitlines()[0]
    done = subprocess.run(
        ["bash", "-c", f'{body}; printf %s "$line"'], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == block("test")


def test_readme_options_exist():
    pages = [
        subprocess.run(
            [sys.executable, "-c", "from stream.cli import main; main()", *command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in ([], ["train"], ["explain"], ["export"], ["engines", "build"])
    ]
    own = README.replace(block("test"), "")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", own)) - {"--help"}
    assert named, "README names no option"
    missing = sorted(option for option in named if not any(option in page for page in pages))
    assert not missing


def test_all_keys_of_a_line_of_scores_are_told():
    (told,) = re.findall(r"^A line of `--scores`.+?\n\n", README, re.S | re.M)
    frame = replace(make_frame(), file="a.png")
    keys = json.loads(score_line(frame, make_explanation()))
    assert [key for key in keys if f"`{key}`" not in told] == []


def test_pictures_and_pages_linked_in_readme_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_says_how_often_the_default_model_is_right():
    manifest = open_bundle("nem-tiny").manifest
    top1 = manifest.quality[f"top1_{manifest.input_size}"]
    row = f"top-1, {len(manifest.classes)} classes | {top1:.1%}".replace("%", " %")
    assert row in README


@pytest.mark.parametrize("code", re.findall(r"```python\n(.+?)```", README, re.S))
def test_python_runs_as_it_stands(code, tmp_path, monkeypatch):
    if "bundle_io" in code:
        pytest.importorskip("torch", reason="needs the extra train")
    monkeypatch.chdir(tmp_path)
    make_clip("clip.mp4", frames=2)
    cv2.imwrite("cat.jpg", np.full((60, 80, 3), 128, np.uint8))
    exec(code.replace("masks=3000", "masks=9"), {})

"""A bundle without weights, and the command run in a process of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from nem.explanation import Aim
from nem.hashes import stored_sha256
from nem.manifest import GRAPH, MANIFEST, PARTS, WEIGHTS, BackboneInfo, DecoderInfo, Manifest

ROOT = Path(__file__).parents[3]
SECONDS = 100.0


def make_paper_bundle(
    folder: Path,
    *,
    input_size: int = 32,
    heads: tuple[Aim, ...] = ("embedding",),
    bias: float = 0,
) -> Path:
    """A bundle whose manifest is true and whose files are dummies: enough for the fake engine."""
    folder.mkdir(parents=True)
    weights = save({f"{PARTS[0]}bias": np.float32([bias])})
    contents = {WEIGHTS: weights, GRAPH: b"graph"}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    manifest = Manifest(
        name="dummy",
        heads=heads,
        fill="mean",
        input_size=input_size,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        classes=("dark", "grey", "bright"),
        backbone=BackboneInfo(
            name="dummy",
            source="made by a test",
            sha256=stored_sha256(folder / WEIGHTS, PARTS[0]),
        ),
        decoder=DecoderInfo(kind="lite"),
        files={name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return folder


LEFT_OUT = {"DISPLAY", "WAYLAND_DISPLAY", "PYTHONUNBUFFERED"}
"""Of the environment: windows, and what hides that bytes may wait for a reader who left."""


def environment(**changes: str) -> dict[str, str]:
    """The environment of a child: no display, no colours, this checkout."""
    kept = {k: v for k, v in os.environ.items() if k not in LEFT_OUT}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **changes}


def command(*arguments: object) -> list[str]:
    """The command line `nem-stream ARGUMENTS`."""
    code = "import sys; from stream.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def leave_after_a_line(*arguments: object) -> tuple[str, int, str]:
    """Run the command and close its stdout after the first line: that line, exit code, stderr."""
    with subprocess.Popen(
        command(*arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        return line, process.wait(SECONDS), err


def nem_stream(*arguments: object, cwd: Path | None = None, **changes: str):
    """Run the command to its end; both outputs as text."""
    return child(command(*arguments), cwd=cwd, **changes)


def child(line: Sequence[str], cwd: Path | None = None, **changes: str):
    """Run any command line as `nem_stream` does."""
    return subprocess.run(
        line,
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

"""From the command to the first explained frame, engine cached; and what it all weighs on disk.

    python -m scripts.bench_start

Starts `nem-stream` afresh on a short clip, as a user would, with scores going to a pipe; the time
stops when the first line arrives. The first start, which builds the engine, is reported apart.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import nem
from scripts.ending import launch
from scripts.make_clip import make_clip


def first_line_seconds(command: list[str], environment: dict[str, str]) -> float:
    """Seconds until `command` prints its first line on stdout."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        _, errors = process.communicate()
    if not line:
        sys.exit(f"nem-stream failed: {errors.decode()}")
    return seconds


def megabytes(folder: Path) -> float:
    """Size of all files below `folder` in MB."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description="Measure start-up time and disk use.")
    parser.add_argument("--repeats", type=int, default=7, help="cached starts (default 7)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / "clip.mp4"
        make_clip(clip, width=1280, height=720, frames=30, fps=30)
        program = str(Path(sysconfig.get_path("scripts")) / "nem-stream")
        command = [program, str(clip), "none", "--scores", "-", "--headless", "-q"]
        environment = os.environ | {"NEM_CACHE": str(Path(name) / "cache")}
        built = first_line_seconds(command, environment)
        cached = [first_line_seconds(command, environment) for _ in range(args.repeats)]
    print(
        f"first start {built:.2f} s; cached start to first explained frame "
        f"{statistics.median(cached):.2f} s, fastest {min(cached):.2f} s (asked <= 1.0)"
    )
    packages = Path(sysconfig.get_path("purelib"))
    print(f"site-packages {megabytes(packages):.0f} MB (asked <= 650 for the base install)")
    bundles = Path(nem.__file__).parent / "bundles"
    print(f"embedded bundles {megabytes(bundles):.1f} MB (asked <= 25)")


if __name__ == "__main__":
    launch(main)

"""No space left: one line, exit code 5, and nothing that looks whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from tests.builders import make_clip, make_explanation, make_frame
from stream.errors import SinkError
from stream.sinks import FileSink

out, frames, copy = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "sound"
most = int(sys.argv[4])
clip = make_clip(out.with_name("in.mp4"), frames=300, audio=True) if copy else None
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
sink = FileSink(out, copy_from=clip)
rng = np.random.default_rng(0)
try:
    for index in range(frames):
        noise = rng.integers(0, 255, (64, 96, 3), np.uint8)
        sink.write(make_frame(rgb=noise, index=index), make_explanation())
    print("written", end=" ")
    sink.close()
except SinkError as error:
    print(f"{error.exit_code}: {error}")
sink.close(whole=False)
"""


def run(path: Path, frames: int, copy: str, most: int = 200_000) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(path), str(frames), copy, str(most)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.parametrize("copy", ["silent", "sound"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_disk_fills_up_on_the_way(tmp_path, suffix, copy):
    out = tmp_path / f"out.{suffix}"
    said = run(out, 2000, copy)
    assert said.startswith(f"5: {out}: writing failed: File too large; what there is stays in ")
    assert said.count("\n") == 1
    left = {p.name for p in tmp_path.iterdir()} - {"in.mp4"}
    assert left == {f"out.{suffix}.partial"}
    assert out.with_name(f"out.{suffix}.partial").stat().st_size <= 200_000


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.parametrize(("frames", "fits"), [(30, True), (45, False)])
def test_the_disk_fills_up_at_the_very_end(tmp_path, frames, fits):
    """All frames were taken, but their last bytes may not fit: then the file is not whole."""
    said = run(tmp_path / "out.mp4", frames, "silent")
    assert said.startswith("written ")
    assert said.startswith("written 5: ") == (not fits)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4" if fits else "out.mp4.partial"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_where_nothing_could_be_stored_nothing_stays(tmp_path):
    said = run(tmp_path / "out.mp4", 200, "silent", most=0)
    assert said.startswith(f"5: {tmp_path / 'out.mp4'}: writing failed: File too large; free some")
    assert list(tmp_path.iterdir()) == []

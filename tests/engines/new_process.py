"""An engine opened by a new process, which has nothing but the store in common with this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

CODE = """
import sys, numpy as np
from engines import open_engine
bundle, engine, device, precision, batch, frames, masks = sys.argv[1:]
with open_engine(bundle, engine, device, precision, batch=int(batch), say=sys.exit) as opened:
    np.save(masks, opened.run(np.load(frames)).mask)
"""
"""Ends with status 1 where the engine has something to say, as that it is built anew."""


def masks_of_new_process(
    bundle: Path, runs: tuple[str, str, str, int], frames: np.ndarray, cache: Path, folder: Path
) -> np.ndarray:
    """Masks of the frames.

    Args:
        bundle: its folder.
        runs: engine, device, precision and batch.
        frames: uint8 (N, H, W, 3).
        cache: the folder `NEM_CACHE`, where what was built is stored.
        folder: for files.
    """
    given, got = folder / "frames.npy", folder / "masks.npy"
    np.save(given, frames)
    arguments = map(str, (bundle, *runs, given, got))
    ran = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env={**os.environ, "NEM_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return np.load(got)

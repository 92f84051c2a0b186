"""TensorRT's timings of kernels, kept between builds: the next build of their kind is quick."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engines.store import default_folder

_log = logging.getLogger(__name__)


@contextmanager
def kept_timings(version: str, gpu: str) -> Iterator[Path]:
    """A file for a builder to read timings from, where it exists, and to write them to.

    It is a copy of the one in the folder of stored engines and takes its place when the build
    succeeds, so builds at the same time never see half a file. Without a folder to write to
    nothing is kept.

    Args:
        version: of TensorRT; timings are valid for one version and GPU.
        gpu: its name.
    """
    name = re.sub("[^a-z0-9.]+", "-", f"{version} {gpu}".lower()).strip("-")
    kept = default_folder() / f"timings-{name}.bin"
    with tempfile.TemporaryDirectory(prefix="nem-timings-") as scratch:
        path = Path(scratch) / "timings.bin"
        with suppress(OSError):
            if os.name != "posix" or kept.stat().st_uid == os.geteuid():
                shutil.copyfile(kept, path)
        yield path
        try:
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = kept.with_name(f"{kept.stem}-{os.getpid()}.tmp")
            shutil.copyfile(path, partial)
            partial.replace(kept)
        except OSError as error:
            _log.warning("timings of kernels not kept in %s: %s", kept.parent, error)

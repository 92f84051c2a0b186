"""One JSON line per frame, written and flushed as it comes: to a file or to stdout.

    {"schema": 1, "frame": 12, "seconds": 0.48, "mask_mean": 0.1372, "mask_area": 0.0911,
     "explain": "target", "target": "dog",
     "top": [{"name": "cat", "score": 0.874}, ...]}

`mask_mean` is the mean of the mask, `mask_area` the share of it at or above 0.5. `explain`
is what the mask explains, and `target` the class it is for, null for the embedding. `top` is empty
for a model without classes. A mean or score that is no number is null. Of a picture the line also
has its `file`. A later schema with other meanings gets another number; fields may be added under
the same one.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from nem.explanation import Explanation
from stream.aim import aim_of
from stream.errors import SinkError, UsageError
from stream.frame import Frame
from stream.sinks.base import Sink
from stream.sinks.partial import PartialFile
from stream.stdout import forget, refused

SCHEMA = 1
AREA_THRESHOLD = 0.5
TOP = 5
"""Classes per line."""
TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".ods", ".parquet", ".feather")
"""Suffixes of files that hold no JSON lines, whoever opens them."""


def score_line(frame: Frame, explanation: Explanation) -> str:
    """The JSON line of one frame, without line end; see the module's header."""
    mask = explanation.mask[0]
    line: dict[str, Any] = {
        "schema": SCHEMA,
        "frame": frame.index,
        "seconds": round(frame.pts_seconds, 6),
        "mask_mean": _rounded(float(mask.mean())),
        "mask_area": round(float(np.mean(mask >= AREA_THRESHOLD)), 4),
        "explain": aim_of(explanation),
        "target": None
        if explanation.target is None
        else explanation.names[int(explanation.target[0])],
        "top": [{"name": name, "score": _rounded(score)} for name, score in explanation.top(TOP)],
    }
    if frame.file is not None:
        line["file"] = frame.file
    return json.dumps(line, ensure_ascii=False)


def _rounded(value: float) -> float | None:
    """Four digits of a number; None of what is none, which JSON can't say."""
    return round(value, 4) if math.isfinite(value) else None


class ScoresSink(Sink):
    """Writes `score_line`s to `path`, as `<path>.partial` until whole, or to stdout for "-".

    Args:
        path: file, or "-".
        overwrite: replace an existing file.
        inputs: files that must not be written over.

    Raises:
        UsageError: if the output is an input, or named as a table.
        SinkError: if the file exists or can't be created, or stdout is closed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        inputs: Iterable[Path] = (),
    ) -> None:
        if str(path) == "-" and sys.stdout is None:
            raise SinkError("scores: stdout is closed; give a file's name instead of -")
        if (suffix := Path(path).suffix.lower()) in TABLES:
            raise UsageError(f"scores {path}: JSON lines are written, not {suffix}; use .jsonl")
        self._output = (
            None if str(path) == "-" else PartialFile(path, overwrite=overwrite, inputs=inputs)
        )
        self._frames = 0
        self._pipe_closed = False
        self._closed = False

    def write(self, frame: Frame, explanation: Explanation) -> None:
        """Write and flush one line.

        Raises:
            SinkError: if the disk does not take it.
        """
        if self._pipe_closed:
            return
        # A file name may hold bytes that are no text: their escapes are JSON's, too.
        line = f"{score_line(frame, explanation)}\n".encode(errors="backslashreplace")
        out: IO[bytes] = sys.stdout.buffer if self._output is None else self._output.file
        try:
            written = out.write(line)
            out.flush()
            if written != len(line):  # of an unbuffered stdout, which does not tell by an error
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except BrokenPipeError:
            self._pipe_closed = True
            if self._output is None:
                forget(sys.stdout)
        except OSError as error:
            if self._output is None:
                raise SinkError(refused("writing scores", error)) from error
            self.close(whole=False)
            raise self._output.failed(error) from error
        self._frames += 1

    def stop_requested(self) -> bool:
        """True once the reader of stdout went away (`... | head`): an end, not an error."""
        return self._pipe_closed

    def close(self, *, whole: bool = True) -> None:
        """Give the file its name if `whole`; without any line it is removed."""
        if self._closed or self._output is None:
            return
        self._closed = True
        if not self._frames:
            self._output.discard()
        elif whole:
            self._output.finish()
        else:
            self._output.leave()

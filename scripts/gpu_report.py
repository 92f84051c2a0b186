"""The figures of a GPU as a table, and what was asked for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

MASK_MS = 1.0
"""Frame to mask, p50 at batch 1 from a native frame: what was asked for."""
OVERHEAD = 1.15
"""With the explanation by without: what was asked for."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        engine, precision, batch: what ran.
        frame: (height, width).
        case: "backbone" or "lite".
        p50, p95: milliseconds of a call.
        fps: frames per second, calls back to back.
        share: of the roof, in [0, 1].
        bound: which part is the roof, "arithmetic" or "memory".
        wrong: why its answer is not that of float32; None where it is.
    """

    engine: str
    precision: str
    batch: int
    frame: tuple[int, int]
    case: str
    p50: float
    p95: float
    fps: float
    share: float
    bound: str
    wrong: str | None = None


@dataclass(slots=True)
class Report:
    """All that was measured."""

    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def overheads(self) -> list[tuple[Row, float]]:
        """Rows with the explanation, and their p50 by that of the model alone."""
        alone = {place(row): row.p50 for row in self.rows if row.case == "backbone"}
        return [
            (row, row.p50 / alone[place(row)])
            for row in self.rows
            if row.case == "lite" and place(row) in alone
        ]

    def asked(self, native: tuple[int, int]) -> list[str]:
        """What was asked for and what was found, by the quickest right engine, a line each.

        Args:
            native: (height, width) of the frames that it is asked of, at batch 1.
        """
        right = [(row, ratio) for row, ratio in self.overheads() if row.wrong is None]
        native_rows = [pair for pair in right if pair[0].batch == 1 and pair[0].frame == native]
        if not native_rows:
            return [f"what was asked for ({_NATIVE.format(*native)}): not measured"]
        row, ratio = min(native_rows, key=lambda pair: pair[0].p50)
        within = sum(ratio <= OVERHEAD for _, ratio in right)
        return [
            f"{_NATIVE.format(*native)}, quickest is {row.engine} in {row.precision}:",
            f"  frame to mask {row.p50:.3f} ms{_verdict(row.p50, MASK_MS, 'ms')}",
            f"  explanation on top of the model {ratio:.3f} x{_verdict(ratio, OVERHEAD, 'x')}; "
            f"of all that was measured {within} of {len(right)} are within",
        ]


_NATIVE = "batch 1 from {1}x{0}"


def _verdict(found: float, limit: float, unit: str) -> str:
    return f" (asked <= {limit:.2f} {unit}): {'met' if found <= limit else 'MISSED'}"


def table(report: Report) -> list[str]:
    """The rows below their head, a ratio behind each with the explanation."""
    head = f"{'engine':<13}{'':<5}{'batch':>5}{'frame':>11}  {'case':<9}"
    head += "".join(f"{name:>9}" for name in ("p50 ms", "p95 ms", "fps", "roof", "ratio"))
    return [head, *lines(report)]


def lines(report: Report) -> list[str]:
    """A line for each row."""
    ratios = {id(row): ratio for row, ratio in report.overheads()}
    return [_line(row, ratios.get(id(row))) for row in report.rows]


def _line(row: Row, ratio: float | None) -> str:
    frame = f"{row.frame[1]}x{row.frame[0]}"
    return (
        f"{row.engine:<13}{row.precision:<5}{row.batch:>5}{frame:>11}  {row.case:<9}"
        f"{row.p50:>9.3f}{row.p95:>9.3f}{row.fps:>9.0f}{row.share:>9.1%}"
        f"{'' if ratio is None else f'{ratio:.3f}':>9}"
        + (f"  WRONG: {row.wrong}" if row.wrong else "")
    )


def percentiles(samples: Sequence[float]) -> tuple[float, float]:
    """The 50th and 95th percentile of at least two samples."""
    cuts = statistics.quantiles(samples, n=20, method="inclusive")
    return cuts[9], cuts[18]


def place(row: Row) -> tuple[str, str, int, tuple[int, int]]:
    """What ran, whatever the case."""
    return row.engine, row.precision, row.batch, row.frame

"""The table of `eval_methods`: kept in a file, printed, and held against what was asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, float]
Result = dict[str, Any]
"""settings; rows: figures by method; left_out: reasons by method; absent_over_true."""


def start(path: Path | None, settings: dict[str, Any]) -> Result:
    """What an earlier call left in the file, or a new table. Ends if it was made otherwise."""
    if path is None or not path.exists():
        return {"settings": settings, "rows": {}, "left_out": {}, "absent_over_true": None}
    try:
        result: Result = json.loads(path.read_text(encoding="utf-8"))
        before = result["settings"]
    except (ValueError, KeyError, TypeError):
        sys.exit(f"{path}: not a table of eval_methods; name another file")
    if other := [k for k in settings if before.get(k) != settings[k]]:
        was = ", ".join(f"{k} {before.get(k)} (now {settings[k]})" for k in other)
        sys.exit(f"{path}: its figures were made with {was}; ask for the same or name another file")
    return result


def save(path: Path | None, result: Result) -> None:
    """Write the table, whole or not at all."""
    if path is not None:
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        part.replace(path)


def verdicts(rows: dict[str, Row], absent_over_true: float | None = None) -> list[str]:
    """The figures asked for, met or missed; open where a method was not run."""
    lines = []

    def compare(one: str, other: str, key: str, ask: str, bound: Callable[[float], float]) -> None:
        a, b = rows.get(one, {}).get(key), rows.get(other, {}).get(key)
        if a is None or b is None:
            lines.append(f"open   {key}: {one} {ask}; not both were run")
            return
        # Entropy is asked to be low, all else high. NaN misses.
        met = a <= bound(b) if key == "entropy" else a >= bound(b)
        state = "met   " if met else "MISSED"
        lines.append(f"{state} {key}: {one} {a:.3f}, {other} {b:.3f} (asked {ask})")

    compare("ra-nem", "grad-cam++", "faith", ">= grad-cam++ + 0.03", lambda b: b + 0.03)
    compare("ra-nem", "rise", "faith", ">= rise", lambda b: b)
    for key in ("coco", "davis"):
        compare("nemt", "grad-cam++", f"mass-{key}", ">= grad-cam++", lambda b: b)
    for key in ("coco", "davis"):
        compare("nem-u", "relax", f"mass-{key}", ">= 1.2 x relax", lambda b: 1.2 * b)
    compare("nem-u", "relax", "entropy", "<= relax - 0.5 nat", lambda b: b - 0.5)
    if absent_over_true is None:
        lines.append("open   absent class over true class <= 0.25: no head for any class")
    else:
        state = "met   " if absent_over_true <= 0.25 else "MISSED"
        lines.append(f"{state} absent class over true class {absent_over_true:.3f} (asked <= 0.25)")
    return lines


def print_result(result: Result) -> None:
    """Methods in rows, figures in columns; then the verdicts, and what is missing."""
    rows: dict[str, Row] = result["rows"]
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    print(f"{'':22}" + "".join(f"{c:>14}" for c in columns))
    for name, row in rows.items():
        cells = (f"{row[c]:14.3f}" if c in row else " " * 14 for c in columns)
        print(f"{name:22}" + "".join(cells))
    for name, reason in result["left_out"].items():
        print(f"{name:22}left out: {reason}")
    masks = result["settings"].get("masks")
    if masks != 1:
        print(f"with {masks:g} of RELAX's 3,000 and RISE's 1,000 masks, so theirs is no final word")
    print("\n".join(verdicts(rows, result["absent_over_true"])))

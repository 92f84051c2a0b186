"""What this CPU is, as far as compiled engines depend on it."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def cpu_model() -> str:
    """The CPU's name, as "AMD EPYC"; the architecture's name where the system tells no more."""
    entries = _first_processor()
    return entries.get("model name") or platform.processor() or platform.machine()


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets as Linux names them ("avx512_bf16", ...); empty on other systems."""
    entries = _first_processor()
    return frozenset((entries.get("flags") or entries.get("Features") or "").split())


def usable_cores() -> int:
    """Cores that this process may use."""
    on_linux = sys.platform == "linux"  # the system that tells
    return len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1


def flags_digest() -> str:
    """The instruction sets in 16 characters, for the keys of what is compiled for them."""
    return hashlib.sha256(" ".join(sorted(cpu_flags())).encode()).hexdigest()[:16]


def has_bf16(flags: frozenset[str]) -> bool | None:
    """Whether bfloat16 products are native (x86 AVX-512, AMX or AVX-NE-CONVERT; Arm), or None."""
    if not flags:
        return None
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"})


def _first_processor() -> dict[str, str]:
    entries = {}
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                key, separator, value = line.partition(":")
                if not separator:
                    break
                entries[key.strip()] = value.strip()
    except OSError:
        pass
    return entries

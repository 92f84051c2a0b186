"""Hashes of files, and of tensors in a file. Imports no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors import safe_open


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored_sha256(path: Path, prefix: str) -> str:
    """What `nem.bundle_io.state_sha256` gives of those tensors, loaded.

    Args:
        path: a safetensors file; tensors of 16 bits in it are float32 once loaded.
        prefix: of their names in the file.

    Raises:
        OSError: it can't be read.
        SafetensorError: it is damaged, or of another format.
    """
    digest = hashlib.sha256()
    with safe_open(path, framework="np") as file:
        for name in sorted(name for name in file.keys() if name.startswith(prefix)):  # noqa: SIM118 - no mapping
            values = file.get_tensor(name)
            if values.dtype == np.float16:
                values = values.astype(np.float32)
            name = name.removeprefix(prefix)
            digest.update(f"{name} torch.{values.dtype} {values.shape}\n".encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()

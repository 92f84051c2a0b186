"""A look at a video file's outermost structure: is all of it there, and is it encrypted?

FFmpeg ends at a missing tail as it does at a proper end, so the sizes are read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MP4_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide",
                       b"uuid", b"sidx", b"mfra", b"pdin", b"meta", b"emsg", b"prft"})  # fmt: skip
ENCRYPTION_MARKS = (b"encv", b"pssh", b"senc", b"sinf")
LOOK = 1 << 20


@dataclass(frozen=True, slots=True)
class Extent:
    """What the outer structure tells.

    Attributes:
        size: bytes in the file.
        missing: bytes that the structure promises beyond the end of the file; 0 if none is known.
        whole: offset where the last incomplete part begins; `size` if nothing is missing.
        encrypted: True if the pictures are stored encrypted (MP4 sample entry `encv`).
        protection: True if marks of encryption were seen, perhaps only for the sound.
    """

    size: int
    missing: int = 0
    whole: int = 0
    encrypted: bool = False
    protection: bool = False


def examine(path: Path) -> Extent:
    """Read the outermost structure of an MP4/MOV, Matroska/WebM or AVI file; others tell nothing.

    Raises:
        OSError: if the file can't be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(12)
        if head[4:8] in MP4_BOXES:
            return _mp4(file, size)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _ended(size, _matroska_end(file))
        if head[:4] == b"RIFF" and len(head) == 12:
            return _ended(size, 8 + int.from_bytes(head[4:8], "little"))
        return Extent(size, whole=size)


def _ended(size: int, end: int | None) -> Extent:
    missing = max((end or 0) - size, 0)
    return Extent(size, missing, 0 if missing else size)


def _mp4(file: BinaryIO, size: int) -> Extent:
    offset, marks = 0, b""
    while offset + 8 <= size:
        file.seek(offset)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        if kind not in MP4_BOXES:
            break
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if length == 0:
            length = size - offset
        if kind in {b"moov", b"moof"}:
            file.seek(offset)
            data = file.read(min(length, LOOK))
            marks += b"".join(mark for mark in ENCRYPTION_MARKS if mark in data)
        if length < 8 or offset + length > size:
            missing = max(offset + length - size, 0)
            return Extent(size, missing, offset, b"encv" in marks, bool(marks))
        offset += length
    return Extent(size, 0, size, b"encv" in marks, bool(marks))


def _matroska_end(file: BinaryIO) -> int | None:
    """Where the segment says it ends, or None where it doesn't say (RFC 8794, RFC 9559)."""
    file.seek(4)
    header = _vint(file)
    if header is None:
        return None
    file.seek(header, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    length = _vint(file)
    return None if length is None else file.tell() + length


def _vint(file: BinaryIO) -> int | None:
    """A variable-size integer of EBML, or None for "unknown" and for no valid one."""
    first = file.read(1)
    if not first or first == b"\0":
        return None
    length = 9 - first[0].bit_length()
    raw = first + file.read(length - 1)
    value = int.from_bytes(raw, "big") & ((1 << (7 * length)) - 1)
    return None if value == (1 << (7 * length)) - 1 else value

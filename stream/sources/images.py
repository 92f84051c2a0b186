"""Still pictures as a source: one file, many, or a directory of them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nem.errors import reason_of
from nem.pictures import is_image, read_image
from stream.colour import ColourTags
from stream.errors import SourceError
from stream.frame import Frame, frame_from_rgb
from stream.redact import redact
from stream.sources.base import SourceInfo
from stream.sources.door import SEE_THROUGH
from stream.sources.modes import exact_rate
from stream.sources.names import natural_key
from stream.sources.pulled import PulledSource

UNREADABLE = "unreadable pictures skipped"
OTHER_SIZE = "pictures of another size than the first"
STILLED = "animations or pages with only the first picture shown; a GIF or a video is shown whole"
LOOK = 4096
"""Bytes in which a picture tells that it is animated."""
_TIFF: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
COLOUR = ColourTags("bt709", full_range=False, primaries=1, transfer=1)


class ImagesSource(PulledSource):
    """Pictures in the order given, one frame each, turned upright as their EXIF data says.

    A frame keeps its picture's own size; sizes other than the first are counted, and it is for
    the sink to say whether it can take them. A picture that can't be read is skipped and counted
    and leaves its place in time empty. Colours become BT.709, limited range.

    Args:
        paths: picture files, at least one.
        name: what to call the source in messages; the first path unless given.
        fps: pictures per second; sets the time stamps only.

    Raises:
        SourceError: if there is no picture that can be read.
    """

    def __init__(
        self, paths: Sequence[Path], *, name: str | None = None, fps: Fraction | float = 25
    ) -> None:
        super().__init__()
        self._name = redact(name or (str(paths[0]) if paths else "images"))
        self._paths = list(paths)
        rate = exact_rate(fps)
        self._base = 1 / rate
        self._position = 0
        self._index = 0
        self._seen_through: tuple[str, ...] = ()
        ahead = self._next_picture()
        if ahead is None:
            raise SourceError(self._none_readable())
        self._ahead: tuple[int, NDArray[np.uint8]] | None = ahead
        self._size = ahead[1].shape[:2]
        self.info = SourceInfo(
            name=self._name,
            live=False,
            width=self._size[1],
            height=self._size[0],
            fps_declared=rate,
            frames_declared=len(self._paths),
            time_base=self._base,
            colour=COLOUR,
            codec=self._paths[ahead[0]].suffix.lower().lstrip(".") or "raw",
            notes=("RGB converted to YUV 4:2:0", *self._seen_through),
            pictures=tuple(self._paths),
        )

    def _read(self) -> Frame | None:
        picture = self._ahead or self._next_picture()
        self._ahead = None
        if picture is None:
            return None
        position, rgb = picture
        if rgb.shape[:2] != self._size:
            self.counts[OTHER_SIZE] += 1
        index, self._index = self._index, self._index + 1
        return frame_from_rgb(
            rgb,
            index=index,
            pts=position,
            time_base=self._base,
            captured_at=time.monotonic(),
            colour=COLOUR,
            file=str(self._paths[position]),
        )

    def _free(self) -> None:
        self._ahead = None

    def _next_picture(self) -> tuple[int, NDArray[np.uint8]] | None:
        """Position and RGB of the next picture that can be read."""
        while self._position < len(self._paths):
            position, self._position = self._position, self._position + 1
            try:
                picture = read_image(self._paths[position])
                more, alpha = _look(self._paths[position])
                if more:
                    self.counts[STILLED] += 1
                if alpha and not self._seen_through:
                    self._seen_through = (SEE_THROUGH,)
                    if self._index:  # the first one's is in the notes
                        self.counts[SEE_THROUGH] = 1
                return position, picture
            except (OSError, ValueError) as error:
                self._reason = reason_of(error)
                self.counts[UNREADABLE] += 1
        return None

    def _none_readable(self) -> str:
        if not self._paths:
            return f"{self._name}: no pictures in it; give a directory or pattern with some"
        if len(self._paths) > 1:
            return f"{self._name}: none of {len(self._paths)} pictures can be read"
        return f"{self._name}: picture can't be read ({self._reason}); check that a viewer shows it"


def _look(path: Path) -> tuple[bool, bool]:
    """What a PNG, WebP or TIFF says: it holds more than one picture; of the first two, has alpha.

    Alpha is how far pixels are seen through.
    """
    with path.open("rb") as file:
        head = file.read(LOOK)
        if order := _TIFF.get(head[:4]):
            file.seek(int.from_bytes(head[4:8], order))
            file.seek(12 * int.from_bytes(file.read(2), order), os.SEEK_CUR)
            return any(file.read(4)), False  # where the next page is
    if head[8:16] == b"WEBPVP8X":
        return bool(head[20] & 2), bool(head[20] & 16)
    if head[8:16] == b"WEBPVP8L":
        return False, bool(head[24] & 16)
    if head[12:16] != b"IHDR":
        return False, False
    before = head.partition(b"IDAT")[0]
    return b"acTL" in before, head[25] in (4, 6) or b"tRNS" in before


def pictures_in(folder: Path) -> list[Path]:
    """The pictures directly in `folder`, in natural order (`img2` before `img10`)."""
    return sorted((p for p in folder.iterdir() if p.is_file() and is_image(p)), key=natural_key)

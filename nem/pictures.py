"""Pictures: read from files and squashed to a square. numpy and OpenCV only, no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""RGB, uint8 (H, W, 3)."""

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg", ".wmv")


def is_image(path: Path) -> bool:
    """Whether the suffix is that of a picture."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_video(path: Path) -> bool:
    """Whether the suffix is that of a video file."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_media(path: Path) -> bool:
    """Whether the suffix is that of a picture or a video file."""
    return is_image(path) or is_video(path)


def files_below(
    folder: Path,
    kind: Callable[[Path], bool],
    unlisted: Callable[[OSError], None] | None = None,
) -> list[Path]:
    """Files of a kind in a folder and in those in it, sorted; linked ones too, but none twice.

    `unlisted` is called for each folder that can't be listed; it is left out.
    """
    seen: set[str] = set()
    files: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=unlisted, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        files += (path for name in names if kind(path := Path(root, name)) and path.is_file())
    return sorted(files)


def read_image(path: Path) -> Picture:
    """RGB uint8 (H, W, 3) of an image file, turned as its EXIF says.

    Raises:
        ValueError: not an image, or damaged.
        OSError: the file can't be read.
    """
    if not path.is_file() and path.exists():  # reading a pipe could wait for ever
        raise ValueError("is no regular file")
    try:
        data = np.fromfile(path, np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise ValueError(f"not a readable image ({error.err})") from None
    except MemoryError:
        raise ValueError("too large for the memory") from None
    if picture is None:
        raise ValueError("empty file" if data.size == 0 else "not a readable image")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def resize(picture: Picture, size: tuple[int, int]) -> Picture:
    """Resize one picture (H, W[, 3]) to `size` = (height, width): the single definition.

    An axis that shrinks is averaged over area, one that grows is interpolated linearly. The
    graph's own resize (`engines.graph`) computes the same weights as matrices.
    """
    height, width = picture.shape[:2]
    shrunk = (min(height, size[0]), min(width, size[1]))
    if (height, width) == size:
        return picture
    if shrunk == size:
        resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
    elif shrunk == (height, width):
        resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    else:  # one of each: in float32, so that it is rounded once
        resized = cv2.resize(picture.astype(np.float32), shrunk[::-1], interpolation=cv2.INTER_AREA)
        resized = np.rint(cv2.resize(resized, size[::-1], interpolation=cv2.INTER_LINEAR))
    return np.asarray(resized, np.uint8)


def squash(picture: Picture, size: int) -> Picture:
    """Resize (H, W, 3) to the model's square input, (size, size, 3)."""
    return resize(picture, (size, size))

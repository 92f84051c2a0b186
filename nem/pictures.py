"""Pictures: read from files and squashed to a square. numpy and OpenCV only, no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nem.opencv import quiet

Picture = NDArray[np.uint8]
"""RGB, uint8 (H, W, 3)."""

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)

TOO_LARGE = "too large for the memory"

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg", ".wmv")


def no_pictures(given: object, *, one: bool = True) -> str | None:
    """What is given in the place of pictures, and what to do; None where it is pictures.

    Args:
        given: RGB uint8 (N, H, W, 3) with N, H, W >= 1, else something to tell of.
        one: (H, W, 3) will do, too.
    """
    wanted = f"expected RGB uint8 {'(H, W, 3) or ' if one else ''}(N, H, W, 3), N, H, W >= 1"
    if not isinstance(given, np.ndarray):
        return (
            f"{wanted}, got {type(given).__name__}; give a numpy array, of a file "
            "nem.pictures.read_image(path), of a PIL picture np.asarray(picture.convert('RGB'))"
        )
    shape = given.shape
    cure = ""
    if given.dtype.kind == "f":
        cure = "; of values in 0 .. 1 take (255 * x).round().astype(np.uint8)"
    elif given.ndim == 2:
        cure = "; of a grey picture take np.stack([x] * 3, axis=-1)"
    elif shape[-1:] == (4,):
        cure = "; leave the fourth channel out: x[..., :3]"
    elif shape[-3:-2] == (3,) and shape[-1] != 3:
        cure = "; channels come last: np.moveaxis(x, -3, -1)"
    elif given.ndim == 3 and not one:
        cure = "; of one picture take x[None]"
    elif given.dtype == np.uint8 and given.ndim in (3, 4) and shape[-1] == 3 and 0 not in shape:
        return None
    return f"{wanted}, got {given.dtype} {shape}{cure}"


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
        files += (path for name in names if kind(path := Path(root, name)) and _is_file(path))
    return sorted(files)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:  # listed, but not to be looked at: told of when it is read
        return True


def read_image(path: Path | str) -> Picture:
    """RGB uint8 (H, W, 3) of an image file, turned as its EXIF says.

    Raises:
        ValueError: not an image, or damaged.
        OSError: the file can't be read.
    """
    path = Path(path)
    if not path.is_file() and path.exists():  # reading a pipe could wait for ever
        raise ValueError("is no regular file")
    try:
        return decode(np.fromfile(path, np.uint8))
    except MemoryError:
        raise ValueError(TOO_LARGE) from None


def decode(data: NDArray[np.uint8]) -> Picture:
    """RGB uint8 (H, W, 3) of an image file's bytes, turned as its EXIF says.

    Raises:
        ValueError: not an image, or damaged.
    """
    if not data.size:
        raise ValueError("empty file")
    try:
        with quiet():  # of damage, and of what a TIFF holds besides
            picture = cv2.imdecode(_without_profile(data), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ValueError(_reason(error)) from None
    if picture is None:
        raise ValueError("not a readable image")
    return np.asarray(picture, np.uint8)


def _reason(error: cv2.error) -> str:
    if error.code == cv2.Error.StsNoMem:
        return TOO_LARGE
    if "CV_IO_MAX_IMAGE" in error.err:
        return "more pixels than OpenCV reads; shrink it, or raise OPENCV_IO_MAX_IMAGE_PIXELS"
    return f"not a readable image ({error.err})"


def _without_profile(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A PNG without the colour profile, which is not used; other files as they are.

    libpng prints the name of a profile that it dislikes, and with it what steers a terminal.
    """
    if data[:8].tobytes() != b"\x89PNG\r\n\x1a\n":
        return data
    kept, at = [data[:8]], 8
    while at < data.size:
        length, kind = data[at : at + 4].tobytes(), data[at + 4 : at + 8].tobytes()
        end = data.size if kind == b"IDAT" else at + 12 + int.from_bytes(length)
        if kind != b"iCCP":
            kept.append(data[at:end])
        at = end
    return np.concatenate(kept)


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

"""From what the user wrote to an open source."""

from __future__ import annotations

import glob
import math
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import unquote, urlsplit

from nem.pictures import is_image, is_video
from stream.errors import SourceError, UsageError
from stream.redact import redact
from stream.sources.base import Source
from stream.sources.camera import CameraSource
from stream.sources.demo import DemoSource
from stream.sources.file import Decoder, FileSource
from stream.sources.images import ImagesSource, pictures_in
from stream.sources.modes import Wish, exact_rate
from stream.sources.names import natural_key

KINDS = (
    "a video file, a picture, a directory of pictures, a quoted pattern ('shots/*.png'), "
    "a camera (0 or /dev/video0), or demo"
)

VIDEOS = "videos in the directory left out; to have one, name it"
_NUMBERS: dict[str, type[Any]] = {
    "width": Integral,
    "height": Integral,
    "fps": Real,
    "frames": Integral,
}


class Wishes(TypedDict, total=False):
    """What `open_source` takes besides the source."""

    width: int | None
    height: int | None
    fps: Fraction | float | None
    frames: int | None
    live: bool | None
    decode: Decoder | None


def open_source(
    spec: str | Path | int,
    *,
    width: int | None = None,
    height: int | None = None,
    fps: Fraction | float | None = None,
    frames: int | None = None,
    live: bool | None = None,
    decode: Decoder | None = None,
) -> Source:
    """Open what `spec` names.

    | spec | source |
    | --- | --- |
    | 0, "0", "/dev/video0" | camera |
    | "demo", "demo:" | synthetic camera over the photos of scikit-image (extra `demo`) |
    | "clip.mp4", "file:///tmp/clip.mp4" | video file |
    | "photo.jpg" | one picture |
    | "shots/" | the pictures of a directory, in natural order |
    | "shots/*.png" | the pictures that match, in natural order; or the one video that does |

    A file called `0` or `demo` is named `./0` or `./demo`. Video files know their own size and
    times, so of the options only `decode` applies to them.

    Args:
        spec: what to open.
        width: of the frames in pixels; camera (a wish) and demo. Needs `height`.
        height: of the frames in pixels; camera (a wish) and demo. Needs `width`.
        fps: frames per second; camera (a wish), pictures (25 unless given) and demo.
        frames: number of frames; demo only.
        live: demo only; False gives frames as fast as they are asked for.
        decode: video file only: "cpu" (as None), "cuda" or "auto"; see `FileSource`.

    Raises:
        UsageError: if `spec` names no kind of source, or an option doesn't apply to it.
        SourceError: if the source can't be opened.
    """
    if not isinstance(spec, str | Path | int | None):
        raise UsageError(f"a source can't be of type {type(spec).__name__}; give {KINDS}")
    options = Options(width, height, fps, frames, live, decode)
    if isinstance(spec, int) or (isinstance(spec, str) and spec.isdecimal()):
        return _camera(int(spec), options)
    if spec in {"demo", "demo:"}:
        options.only("the demo", "width", "height", "fps", "frames", "live")
        return DemoSource(**options.given())
    path = spec if isinstance(spec, Path) else _path(spec)
    if _is_device(path):
        return _camera(str(path), options)
    # os.path: what can't be looked at is told of by the source, where pathlib's would raise.
    if os.path.isdir(path):  # noqa: PTH112
        pictures, videos = _in_directory(path)
        source = _pictures(pictures, str(spec), options)
        if videos:
            source.counts[VIDEOS] = videos
        return source
    if glob.has_magic(str(path)) and not os.path.exists(path):  # noqa: PTH110
        return _matching(str(path), options)
    if is_image(path):
        return _pictures([path], str(spec), options)
    return _video(path, options)


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for besides the source; None where nothing was."""

    width: int | None = None
    height: int | None = None
    fps: Fraction | float | None = None
    frames: int | None = None
    live: bool | None = None
    decode: Decoder | None = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise UsageError(f"give width and height or neither, got {self.width}, {self.height}")
        for name, kind in _NUMBERS.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, kind) and 0 < value < math.inf):
                number = "number" if kind is Real else "whole number"
                raise UsageError(f"{name} must be a positive {number}, got {value!r}")

    def given(self) -> dict[str, Any]:
        """Those that were asked for, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def only(self, kind: str, *allowed: str) -> None:
        """Refuse options that would do nothing.

        Raises:
            UsageError: naming them.
        """
        useless = [name for name in self.given() if name not in allowed]
        if useless:
            raise UsageError(
                f"{_told(useless)}: not for {kind}; leave it out (allowed there: {_told(allowed)})"
            )


def _told(names: Iterable[str]) -> str:
    """The options in words that fit those of Python and of the command, which has one size."""
    words = {"width": "size (width, height)"}
    return ", ".join(words.get(name, name) for name in names if name != "height")


def _camera(device: int | str, options: Options) -> Source:
    options.only("a camera", "width", "height", "fps")
    rate = None if options.fps is None else exact_rate(options.fps)
    return CameraSource(device, wish=Wish(options.width, options.height, rate))


def _video(path: Path, options: Options) -> Source:
    options.only("a video file", "decode")
    return FileSource(path, decode=options.decode or "cpu")


def _pictures(paths: list[Path], name: str, options: Options) -> Source:
    options.only("pictures", "fps")
    return ImagesSource(paths, name=name, fps=options.fps or 25)


def _path(text: str) -> Path:
    """The path that `text` names.

    Raises:
        UsageError: if it is a URL of another kind, the standard input, or nothing.
    """
    if not text or text == "-":
        what = "the standard input is no source yet" if text else "no source given"
        raise UsageError(f"{what}; give {KINDS}")
    if "://" not in text:
        with suppress(RuntimeError):  # no such user: then it is a name like any other
            return Path(text).expanduser()
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Path(unquote(parts.path))
    raise UsageError(f"{redact(text)}: {parts.scheme} sources are not supported; give {KINDS}")


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return path.parts[:2] == ("/", "dev")  # absent: as a camera it is told which there are


def _in_directory(folder: Path) -> tuple[list[Path], int]:
    """The pictures of a folder, and how many videos are beside them."""
    try:
        found = pictures_in(folder)
        files = sorted(folder.iterdir())
    except PermissionError:
        raise _forbidden(folder) from None
    if not found:
        what = f"it holds {', '.join(p.name for p in files[:3])}" if files else "it is empty"
        raise SourceError(f"{folder}: no pictures in this directory ({what}); name one video in it")
    return found, sum(map(is_video, files))


def _forbidden(folder: Path) -> SourceError:
    return SourceError(f"{folder}: no permission to list it; try: chmod u+rx '{folder}'")


def _matching(pattern: str, options: Options) -> Source:
    """The pictures, or the one video, that match a pattern."""
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - pathlib takes no absolute pattern
    paths = sorted(map(Path, found), key=natural_key)
    files = [path for path in paths if os.path.isfile(path)]  # noqa: PTH113
    if not files:
        folder = Path(pattern)
        while glob.has_magic(str(folder)):
            folder = folder.parent
        try:  # glob finds nothing in a folder that may not be listed, or not be entered
            os.listdir(os.path.join(folder, "."))  # noqa: PTH118, PTH208 - pathlib drops the .
        except (FileNotFoundError, NotADirectoryError):
            pass
        except PermissionError:
            raise _forbidden(folder) from None
        raise SourceError(f"{pattern}: no file matches; check the pattern, and quote it")
    pictures = [path for path in files if is_image(path)]
    if len(pictures) == len(files):
        return _pictures(files, pattern, options)
    if len(files) == 1:
        return _video(files[0], options)
    raise UsageError(
        f"{pattern}: matches {len(files)} files, {len(files) - len(pictures)} of them no "
        "pictures; one video at a time, or pictures only"
    )

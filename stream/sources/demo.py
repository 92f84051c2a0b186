"""A synthetic camera: it pans and zooms over the photos that scikit-image carries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from nem.pictures import resize
from stream.colour import ColourTags
from stream.errors import SourceError, UsageError
from stream.frame import Frame, Plane, frame_from_rgb
from stream.sources.base import SourceInfo
from stream.sources.modes import exact_rate
from stream.sources.pulled import PulledSource

# File name -> where the thing to look at lies, as shares of the room the window has to move.
PHOTOS = {
    "astronaut.png": (0.4, 0.05),
    "chelsea.png": (0.5, 0.4),
    "coffee.png": (0.4, 0.3),
    "motorcycle_left.png": (0.5, 0.5),
    "camera.png": (0.3, 0.3),
    "rocket.jpg": (0.3, 0.5),
}
SECONDS_PER_PHOTO = 6
MAX_SIDE = 16384
MARGIN = 1.15
ZOOM = 1.4
COLOUR = ColourTags("bt709", full_range=False, primaries=1, transfer=1)


class DemoSource(PulledSource):
    """A camera that needs no hardware: the same frames on every machine, chosen by their index.

    Each photo is shown for six seconds, then the next (a hard cut). Only photos inside the
    installed scikit-image package are used; nothing is downloaded.

    Args:
        width: of the frames in pixels.
        height: of the frames in pixels.
        fps: frames per second.
        frames: how many there are; None for no end.
        live: True behaves as a camera and waits until each frame is due; False gives frames as
            fast as they are asked for.
        clock: seconds that never jump, as `time.monotonic`.
        wait: waits so many seconds; the default ends early on `close`.

    Raises:
        SourceError: if scikit-image or its photos are missing.
        UsageError: if a side is over `MAX_SIDE`.
    """

    def __init__(
        self,
        *,
        width: int = 1280,
        height: int = 720,
        fps: Fraction | float = 30,
        frames: int | None = None,
        live: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        super().__init__()
        if max(width, height) > MAX_SIDE:
            raise UsageError(f"demo: size {width}x{height}; {MAX_SIDE} pixels a side at most")
        self._photos = bundled_photos()
        self._fps = exact_rate(fps)
        self._frames = frames
        self._clock = clock
        self._wait = wait or self._closing.wait
        self._began: float | None = None
        self._index = 0
        self._shown: tuple[Path, Frame] | None = None
        self.info = SourceInfo(
            name="demo",
            live=live,
            width=width,
            height=height,
            fps_declared=self._fps,
            frames_declared=frames,
            time_base=1 / self._fps,
            colour=COLOUR,
            codec="raw",
            notes=("photos of scikit-image: " + ", ".join(p.stem for p in self._photos),),
        )

    def _read(self) -> Frame | None:
        if self._index == self._frames:
            return None
        index, self._index = self._index, self._index + 1
        if self.info.live:
            self._until_due(index)
        captured_at = self._clock()
        y, u, v = self._picture(index)
        return Frame(y, u, v, index, index, self.info.time_base, captured_at, COLOUR)

    def _until_due(self, index: int) -> None:
        if self._began is None:
            self._began = self._clock()
        left = self._began + float(index / self._fps) - self._clock()
        if left > 0:
            self._wait(left)

    def _free(self) -> None:
        self._shown = None

    def _picture(self, index: int) -> tuple[Plane, Plane, Plane]:
        """The planes of frame `index`: a window moving over one photo."""
        turn, phase = divmod(index / (float(self._fps) * SECONDS_PER_PHOTO), 1)
        path = self._photos[int(turn) % len(self._photos)]
        photo, (x, y) = self._photo(path), PHOTOS[path.name]
        width, height = self.info.width, self.info.height
        # Zooms in and out once while the window runs along an eight around the place (x, y). It
        # never leaves the photo, because its way is measured in the room that the zoom leaves.
        zoom = 1 + (ZOOM - 1) * (0.5 - 0.5 * math.cos(2 * math.pi * phase))
        scale = 1 / zoom
        free_x, free_y = photo.width - width * scale, photo.height - height * scale
        left = free_x * (x + min(x, 1 - x) * math.sin(2 * math.pi * phase))
        top = free_y * (y + min(y, 1 - y) * math.sin(4 * math.pi * phase))
        half = ((width + 1) // 2, (height + 1) // 2)
        return (
            _window(photo.y, scale, left, top, (width, height)),
            _window(photo.u, scale, left / 2, top / 2, half),
            _window(photo.v, scale, left / 2, top / 2, half),
        )

    def _photo(self, path: Path) -> Frame:
        """The photo as planes, just large enough to cover the frame and a margin."""
        if self._shown is not None and self._shown[0] == path:
            return self._shown[1]
        bgr = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            raise SourceError(f"demo: {path} can't be read; reinstall scikit-image")
        rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        height, width = rgb.shape[:2]
        ratio = MARGIN * max(self.info.width / width, self.info.height / height)
        size = (math.ceil(height * ratio), math.ceil(width * ratio))
        photo = frame_from_rgb(
            resize(rgb, size), index=0, pts=0, time_base=self.info.time_base,
            captured_at=0.0, colour=COLOUR,
        )  # fmt: skip
        self._shown = path, photo
        return photo


def bundled_photos() -> list[Path]:
    """The demo photos found inside the installed scikit-image, never downloaded.

    Raises:
        SourceError: if scikit-image isn't installed or holds none of them.
    """
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SourceError(
            "demo: needs scikit-image, which is not installed; install it with: "
            "pip install 'nem-stream[demo]'"
        )
    folder = Path(spec.origin).parent / "data"
    found = [folder / name for name in PHOTOS if (folder / name).is_file()]
    if not found:
        raise SourceError(f"demo: no photos in {folder}; reinstall scikit-image")
    return found


def _window(plane: Plane, scale: float, left: float, top: float, size: tuple[int, int]) -> Plane:
    """`size` = (width, height) pixels of `plane` from (left, top) on, each `scale` wide.

    Pixel centres lie at half numbers, so that luma and chroma move together.
    """
    to_source = np.array(
        [[scale, 0, left + scale / 2 - 0.5], [0, scale, top + scale / 2 - 0.5]], np.float64
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(plane, to_source, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)

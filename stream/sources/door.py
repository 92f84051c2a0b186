"""The door: whatever a decoder delivers becomes upright 8-bit YUV 4:2:0 planes of one size."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

from nem.orientation import Orientation, read_orientation
from nem.videos import is_grey, is_limited_grey, is_rgb
from stream.colour import MATRIX_NUMBERS, ColourTags, Matrix, matrix_by_size
from stream.errors import SourceError
from stream.frame import Plane
from stream.sources.base import RESIZED

PLANAR_420 = frozenset({"yuv420p", "yuvj420p", "yuva420p"})
SWS_MATRIX: dict[Matrix, int] = {"bt709": 1, "bt601": 5, "bt2020": 9}
LEFT_UNDONE = frozenset({"yuyv422", "uyvy422", "nv24", "nv42"})
"""Of these swscale's way to 4:2:0 leaves the last row or columns of an odd size unwritten."""
RECOLOURED = "frames of other colour tags converted to the first"
LEFT_COLOURED = "frames of another transfer function or primaries than the first, tagged as it"
SEE_THROUGH = "transparency ignored"
LOST = {
    "A53_CC": "closed captions",
    "MASTERING_DISPLAY_METADATA": "HDR mastering data",
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DOVI_METADATA": "Dolby Vision",
    "SPHERICAL": "360 degree projection",
    "STEREO3D": "stereo layout",
}
"""What a picture may tell besides its pixels and nothing takes on, by PyAV's names."""
Planes = tuple[Plane, Plane, Plane]


class Door:
    """Converts the frames of one video to the size, position and colour tags of the first.

    8-bit 4:2:0 passes without a copy; the planes then are the decoder's own buffers, which stay
    valid as long as the arrays live. All else goes once through swscale.

    Args:
        name: of the source, for messages.
        first: the first decoded frame.
        codec: FFmpeg name of the codec.
        sample_aspect: width : height of a stored pixel, or None.
        counts: where changes in the middle of the stream are counted.

    Attributes:
        width: of the upright frames in pixels.
        height: of the upright frames in pixels.
        colour: how all planes are to be read.
        notes: what is converted, one sentence each.
    """

    def __init__(
        self,
        name: str,
        first: av.VideoFrame,
        codec: str,
        sample_aspect: Fraction | None,
        counts: Counter[str],
    ) -> None:
        self._name = name
        self._codec = codec
        self._counts = counts
        self._scaler = VideoReformatter()
        self._stored = (first.width, first.height)
        notes = _format_notes(first.format)
        self._size, note = _square_pixels(first.width, first.height, sample_aspect)
        notes += note
        self.colour = self._tags(first)
        notes += _matrix_notes(first)
        orientation = read_orientation(first)
        if orientation is None:
            notes.append("rotation by other than quarter turns is not applied")
        elif orientation != Orientation():
            notes.append("turned upright as the file asks")
        lost = [what for name, what in LOST.items() if first.side_data.get(name) is not None]
        if lost:
            notes.append(f"{', '.join(lost)} in the pictures: not carried over")
        self._orientation = orientation or Orientation()
        self.width, self.height = self._orientation.size(*self._size)
        self.notes = tuple(notes)

    def passes(self, frame: av.VideoFrame) -> bool:
        """Whether an 8-bit 4:2:0 frame is right as it is: nothing to turn, scale or convert."""
        return (
            (frame.width, frame.height) == self._stored == self._size
            and self._orientation == Orientation()
            and self._tags(frame) == self.colour
        )

    def planes(self, frame: av.VideoFrame) -> Planes:
        """The Y, U and V planes of a decoded frame, read-only.

        Raises:
            SourceError: if the pixel format can't be converted.
        """
        if (frame.width, frame.height) != self._stored:
            self._counts[RESIZED] += 1
        tags = self._tags(frame)
        if not _read_alike(tags, self.colour):
            self._counts[RECOLOURED] += 1
        if (tags.primaries, tags.transfer) != (self.colour.primaries, self.colour.transfer):
            self._counts[LEFT_COLOURED] += 1
        try:
            y, u, v = self._convert(frame, tags)
        except (av.FFmpegError, ValueError) as error:
            raise SourceError(
                f"{self._name}: pixel format {frame.format.name} can't be converted to 8-bit "
                f"4:2:0 ({error}); convert the file with ffmpeg -pix_fmt yuv420p first"
            ) from error
        turned = [self._orientation.apply(plane) for plane in (y, u, v)]
        for plane in turned:
            plane.flags.writeable = False
        return turned[0], turned[1], turned[2]

    def _convert(self, frame: av.VideoFrame, tags: ColourTags) -> Planes:
        name, same = frame.format.name, _read_alike(tags, self.colour)
        flipped = any(plane.line_size < 0 for plane in frame.planes)
        grey = is_grey(frame.format) and same and not flipped
        if grey:
            target = "gray"
        elif name in PLANAR_420 and same and not flipped:
            target = name
        else:
            # Stored bottom-up, swscale would return yuv420p untouched; so ask for one plane more.
            target = "yuva420p" if name == "yuv420p" else "yuv420p"
        if target != name or self._size != (frame.width, frame.height):
            frame = self._scale(frame, target, tags)
        height, width = frame.height, frame.width
        half = ((height + 1) // 2, (width + 1) // 2)
        luma, *chroma = frame.planes
        y = _plane(luma, (height, width))
        if grey:
            neutral = np.full(half, 128, np.uint8)
            return y, neutral, neutral
        return y, _plane(chroma[0], half), _plane(chroma[1], half)

    def _scale(self, frame: av.VideoFrame, target: str, tags: ColourTags) -> av.VideoFrame:
        if not _read_alike(tags, self.colour) and not is_rgb(frame.format):
            # From YUV to YUV swscale keeps the matrix whatever is asked for; from RGB it doesn't.
            frame = self._reformat(frame, "gbrp", tags, tags)
        elif frame.format.name in LEFT_UNDONE and (frame.width % 2 or frame.height % 2):
            frame = self._reformat(frame, "yuv444p", tags, tags)
        return self._reformat(frame, target, tags, self.colour)

    def _reformat(
        self, frame: av.VideoFrame, target: str, before: ColourTags, after: ColourTags
    ) -> av.VideoFrame:
        return self._scaler.reformat(
            frame,
            *self._size,
            format=target,
            src_colorspace=SWS_MATRIX[before.matrix],
            dst_colorspace=SWS_MATRIX[after.matrix],
            src_color_range=2 if before.full_range or is_rgb(frame.format) else 1,
            dst_color_range=2 if after.full_range or target == "gbrp" else 1,
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
            threads=1,
        )

    def _tags(self, frame: av.VideoFrame) -> ColourTags:
        """How the planes made of `frame` are to be read."""
        matrix = matrix_by_size(frame.height)
        full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
        if is_rgb(frame.format):
            full = False
        elif is_grey(frame.format):
            full = not is_limited_grey(frame, self._codec)
        else:
            matrix = MATRIX_NUMBERS.get(int(frame.colorspace), matrix)
        return ColourTags(matrix, full, int(frame.color_primaries), int(frame.color_trc))


def _read_alike(one: ColourTags, other: ColourTags) -> bool:
    return (one.matrix, one.full_range) == (other.matrix, other.full_range)


def _plane(plane: VideoPlane, shape: tuple[int, int]) -> Plane:
    """A view of a plane; it keeps the decoder's buffer alive. Rows may be padded."""
    rows = np.frombuffer(memoryview(plane), np.uint8)
    return rows.reshape(-1, plane.line_size)[: shape[0], : shape[1]]


def _square_pixels(
    width: int, height: int, aspect: Fraction | None
) -> tuple[tuple[int, int], list[str]]:
    """(width, height) with square pixels; only ever enlarged, so that nothing is lost.

    The side that grows becomes even: a DVD's 853.3 is 854 and not 853 and a repeated column.
    """
    if aspect is None or aspect <= 0 or abs(aspect - 1) < Fraction(1, 100):
        return (width, height), []
    if not Fraction(1, 4) <= aspect <= 4:
        return (width, height), [f"pixel aspect {aspect} is not believable and not applied"]
    if aspect > 1:
        size = (2 * round(width * aspect / 2), height)
    else:
        size = (width, 2 * round(height / aspect / 2))
    return size, [f"pixels of aspect {aspect} made square: {width}x{height} to {size[0]}x{size[1]}"]


def _matrix_notes(frame: av.VideoFrame) -> list[str]:
    stated = int(frame.colorspace)
    if stated in MATRIX_NUMBERS or is_rgb(frame.format) or is_grey(frame.format):
        return []
    what = "no colour matrix stated" if stated == 2 else f"colour matrix {stated} unknown"
    read = "BT.601 (below 720 lines)"
    if matrix_by_size(frame.height) == "bt709":
        read = "BT.709 (720 lines or more)"
    return [f"{what}: read as {read}"]


def _format_notes(pixels: av.VideoFormat) -> list[str]:
    notes = []
    bits = max(component.bits for component in pixels.components)
    if bits > 8:
        notes.append(f"{bits}-bit reduced to 8-bit")
    if any(component.is_alpha for component in pixels.components):
        notes.append(SEE_THROUGH)
    if is_rgb(pixels):
        notes.append("RGB converted to YUV 4:2:0")
    elif is_grey(pixels):
        notes.append("grey given neutral colour")
    else:
        sampling = (pixels.chroma_width(4), pixels.chroma_height(4))
        if sampling != (2, 2):
            notes.append(f"{_SAMPLINGS.get(sampling, pixels.name)} colour reduced to 4:2:0")
    return notes


_SAMPLINGS = {(4, 4): "4:4:4", (2, 4): "4:2:2", (1, 4): "4:1:1", (4, 2): "4:4:0", (1, 1): "4:1:0"}

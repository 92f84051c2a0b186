"""Makers of test material: frames, explanations, and real video files written with PyAV."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from nem.explanation import Explanation
from stream.colour import ColourTags
from stream.frame import Frame, frame_from_rgb

DATA = Path(os.environ.get("NEM_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Recordings and photos, where there are any; tests that need them are skipped elsewhere."""
BITS = 12
MATRIX_NUMBERS = {"bt709": 1, "bt601": 6, "bt2020": 9}
SWS_MATRIX = {"bt709": 1, "bt601": 5, "bt2020": 9}


def counted_picture(index: int, width: int, height: int) -> np.ndarray:
    """RGB uint8 (H, W, 3): the top half spells `index` in grey blocks, below are moving colours.

    `read_index` gets the number back after any encoding. Pictures narrower than 4 pixels per bit
    or under 8 lines are one flat grey instead, which `read_index` can't read.
    """
    if width < 4 * BITS or height < 8:
        return np.full((height, width, 3), 40 + (index * 24) % 176, np.uint8)
    rgb = np.empty((height, width, 3), np.uint8)
    bits = np.arange(width) * BITS // width
    rgb[: height // 2] = np.where((index >> bits) & 1, 200, 56)[None, :, None]
    y, x = np.mgrid[height // 2 : height, :width]
    rgb[height // 2 :, :, 0] = 40 + 160 * x // width
    rgb[height // 2 :, :, 1] = 40 + 160 * y // height
    rgb[height // 2 :, :, 2] = 40 + (8 * index) % 160
    return rgb


def read_index(luma: np.ndarray) -> int:
    """The number that `counted_picture` wrote into this luma plane or grey picture (H, W)."""
    height, width = luma.shape
    row = luma[height // 8 : max(height // 2 - height // 8, height // 8 + 1)].mean(axis=0)
    columns = (np.arange(BITS) * 2 + 1) * width // (2 * BITS)
    return int(sum(int(row[c] > 128) << i for i, c in enumerate(columns)))


def make_frame(
    height: int = 48,
    width: int = 64,
    *,
    index: int = 0,
    pts: int | None = None,
    time_base: Fraction = Fraction(1, 25),
    captured_at: float = 0.0,
    colour: ColourTags | None = None,
    rgb: np.ndarray | None = None,
) -> Frame:
    """A frame showing `counted_picture(index)` or `rgb`; `pts` is `index` unless given."""
    return frame_from_rgb(
        counted_picture(index, width, height) if rgb is None else rgb,
        index=index,
        pts=index if pts is None else pts,
        time_base=time_base,
        captured_at=captured_at,
        colour=colour,
    )


def make_explanation(
    side: int = 32,
    classes: int = 5,
    *,
    batch: int = 1,
    mask: np.ndarray | None = None,
    seed: int = 0,
) -> Explanation:
    """An explanation: `mask` (N, S, S), or a soft disc; `classes` 0 gives no scores."""
    rng = np.random.default_rng(seed)
    if mask is None:
        y, x = np.mgrid[:side, :side] / max(side - 1, 1) - 0.5
        disc = np.exp(-(x**2 + y**2) * 8).astype(np.float32)
        mask = np.repeat(disc[None], batch, axis=0)
    scores = None
    if classes:
        scores = rng.dirichlet(np.ones(classes), len(mask)).astype(np.float32)
    embedding = rng.standard_normal((len(mask), 8)).astype(np.float32)
    names = tuple(f"class {i}" for i in range(classes))
    return Explanation(np.asarray(mask, np.float32), scores, embedding, names, 0.001)


def make_clip(
    path: str | Path,
    *,
    width: int = 96,
    height: int = 64,
    fps: Fraction | int = 25,
    frames: int = 10,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    picture: Callable[[int], np.ndarray | av.VideoFrame] | None = None,
    colour: ColourTags | None = None,
    rotation: float | None = None,
    hflip: bool = False,
    interlaced: bool = False,
    audio: bool = False,
    subtitle: str | None = None,
    video: bool = True,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a video file; the container follows the suffix.

    Args:
        path: file to write.
        width: of the pictures.
        height: of the pictures.
        fps: frame rate; frame i gets pts i / fps unless `pts` is given.
        frames: number of frames, unless `pts` is given.
        pts: one stamp per frame in units of `time_base` (variable frame rate).
        time_base: seconds per tick of `pts`; 1 / fps unless given.
        codec: FFmpeg name of the encoder.
        pix_fmt: FFmpeg name of the pixel format.
        options: encoder options, as {"bf": "2"}; libx264 gets preset ultrafast unless named.
        picture: index -> RGB uint8 (H, W, 3) or a ready `av.VideoFrame`, instead of
            `counted_picture`.
        colour: tags to convert with and to write; None writes no tags (and converts with 601).
        rotation: counter-clockwise degrees of the display matrix.
        hflip: mirror in the display matrix.
        interlaced: encode as interlaced, top field first.
        audio: add a tone in AAC as long as the video.
        subtitle: add a subtitle track with this line over the first second.
        video: False leaves the video stream out (audio only).
        container_options: options of the muxer, as {"movflags": "frag_keyframe"}.

    Returns:
        The path written.
    """
    path = Path(path)
    options = dict(options or {})
    if codec == "libx264":
        options.setdefault("preset", "ultrafast")
    if interlaced:
        options["flags"] = options.get("flags", "") + "+ildct+ilme"
        if codec == "libx264":
            options.setdefault("x264-params", "tff=1")
    stamps = list(range(frames)) if pts is None else list(pts)
    if codec == "libx265" and len(stamps) < 3:
        raise ValueError("x265 gives fewer than 3 frames random decoding times; encode more")
    base = time_base or 1 / Fraction(fps)
    muxing = dict(container_options or {})
    if time_base is not None and path.suffix in {".mp4", ".mov", ".m4v"}:
        muxing.setdefault("video_track_timescale", str(time_base.denominator))
    with av.open(str(path), "w", options=muxing) as out:
        stream = _video_stream(out, codec, Fraction(fps), base, options) if video else None
        sound = out.add_stream("aac", rate=48000, layout="mono") if audio else None
        text = out.add_mux_stream(_subtitle_codec(path)) if subtitle is not None else None
        if stream is not None:
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            _tag(stream.codec_context, colour)
            if rotation is not None or hflip:
                stream.set_display_rotation(rotation or 0, hflip=hflip)
            for index, stamp in enumerate(stamps):
                source = picture(index) if picture else counted_picture(index, width, height)
                frame = _video_frame(source, pix_fmt, colour)
                frame.pts, frame.time_base = stamp, base
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        if sound is not None:
            _encode_tone(out, sound, float((max(stamps, default=24) + 1) * base))
        if text is not None:
            out.mux(_subtitle_packet(text, str(subtitle)))
    return path


def copy_packets(
    old: av.container.InputContainer,
    streams: Mapping[int, av.stream.Stream],
    prepare: Callable[[av.Packet], bool] = lambda _: True,
) -> None:
    """Mux every packet of an open file into the track that stands for its own.

    Args:
        old: what is read.
        streams: tracks of the output by the index of the input's; others are left out.
        prepare: may change a packet; False leaves it out.
    """
    for packet in old.demux():
        stream = streams.get(packet.stream.index)
        if stream is not None and packet.dts is not None and prepare(packet):
            packet.stream = stream
            stream.container.mux(packet)


def _video_stream(
    out: av.container.OutputContainer,
    codec: str,
    fps: Fraction,
    base: Fraction,
    options: dict[str, str],
) -> av.VideoStream:
    stream = out.add_stream(codec, rate=fps, options=options)
    assert isinstance(stream, av.VideoStream)
    stream.codec_context.time_base = base
    stream.time_base = base
    return stream


def _tag(target: av.VideoCodecContext | av.VideoFrame, colour: ColourTags | None) -> None:
    if colour is not None:
        target.colorspace = MATRIX_NUMBERS[colour.matrix]
        target.color_range = 2 if colour.full_range else 1
        target.color_primaries = colour.primaries
        target.color_trc = colour.transfer


def _video_frame(
    source: np.ndarray | av.VideoFrame, pix_fmt: str, colour: ColourTags | None
) -> av.VideoFrame:
    if not isinstance(source, av.VideoFrame):
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(source), "rgb24")
        used = colour or ColourTags("bt601")
        is_yuv = not rgb_format(pix_fmt)
        source = rgb.reformat(
            format=pix_fmt,
            dst_colorspace=SWS_MATRIX[used.matrix] if is_yuv else None,
            dst_color_range=(2 if used.full_range else 1) if is_yuv else None,
            interpolation="AREA",
        )
        source.colorspace, source.color_range = 2, 0
    _tag(source, colour)
    return source


def rgb_format(pix_fmt: str) -> bool:
    """True for packed and planar RGB formats, False for YUV and grey."""
    return av.VideoFormat(pix_fmt).is_rgb


def _encode_tone(out: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    size = 1024
    for start in range(0, max(int(seconds * 48000), size), size):
        wave = 0.2 * np.sin(2 * np.pi * 440 * (start + np.arange(size)) / 48000)
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def _subtitle_codec(path: Path) -> str:
    return "mov_text" if path.suffix in {".mp4", ".mov", ".m4v"} else "subrip"


def _subtitle_packet(stream: av.stream.Stream, line: str) -> av.Packet:
    data = line.encode()
    if _subtitle_codec(Path(stream.container.name)) == "mov_text":
        data = len(data).to_bytes(2, "big") + data
    packet = av.Packet(data)
    packet.stream = stream
    packet.time_base = Fraction(1, 1000)
    packet.pts = packet.dts = 0
    packet.duration = 1000
    packet.is_keyframe = True
    return packet

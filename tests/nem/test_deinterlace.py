"""Frames that say they are interlaced, of all kinds of pixels and sizes."""

from collections import Counter
from fractions import Fraction

import av
import numpy as np
import pytest
from av.filter import Graph

from nem.deinterlace import DEINTERLACED, deinterlace


def flat(pixels: str, size: tuple[int, int], mode: str, pts: int) -> av.VideoFrame:
    """A flat picture in BT.709, full range, with its fields flagged as `mode` says."""
    height, width = size
    plain = av.VideoFrame(width, height, pixels)
    for plane in plain.planes:
        np.frombuffer(memoryview(plane), np.uint8)[:] = 90
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=plain.format, time_base=Fraction(1, 25)
    )
    flag = graph.add("setfield", f"mode={mode}")
    graph.link_nodes(source, flag, graph.add("buffersink")).configure()
    graph.vpush(plain)
    frame = graph.vpull()
    frame.pts, frame.time_base = pts, Fraction(1, 25)
    frame.colorspace, frame.color_range = 1, 2
    return frame


@pytest.mark.parametrize("size", [(4, 3), (6, 5), (7, 4), (7, 5), (64, 96)])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv410p", "yuyv422", "gray", "gbrp"])
def test_one_frame_for_one_of_any_size(pixels, size):
    modes = ["prog", "tff", "bff", "prog", "tff"]
    frames = [flat(pixels, size, mode, 3 * pts) for pts, mode in enumerate(modes)]
    found = list(deinterlace(frames, Counter()))
    assert [frame.pts for frame in found] == [0, 3, 6, 9, 12]
    assert {(frame.height, frame.width) for frame in found} == {size}


@pytest.mark.parametrize("pixels", ["nv12", "p010le", "yuyv422", "uyvy422", "yuv411p"])
def test_pixels_that_the_filter_does_not_take_keep_their_colours(pixels):
    counts: Counter[str] = Counter()
    frames = [flat(pixels, (64, 96), "tff", pts) for pts in range(3)]
    for frame in deinterlace(frames, counts):
        assert (int(frame.colorspace), int(frame.color_range)) == (1, 2)
        if "p010" not in pixels:
            assert {90} == {value for p in frame.planes for value in bytes(p)[: p.width]}
    assert counts == {DEINTERLACED: 3}

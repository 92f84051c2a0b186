"""Videos that are odd but valid, from file to written file."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from tests.builders import counted_picture, make_clip, read_index

WIDTH, HEIGHT = 96, 64


def turned(index):
    """What a phone held upright records; its file asks for a quarter turn back."""
    return np.ascontiguousarray(np.rot90(counted_picture(index, WIDTH, HEIGHT), -1))


QUIET = {"x265-params": "log-level=none"}
ODD = {
    "odd sides": ("mp4", {"width": 97, "height": 65, "pix_fmt": "yuv444p"}),
    "10 bits": ("mp4", {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": QUIET}),
    "4:2:2": ("mkv", {"codec": "ffv1", "pix_fmt": "yuv422p10le"}),
    "alpha": ("mov", {"codec": "prores_ks", "pix_fmt": "yuva444p10le"}),
    "variable rate": ("mp4", {"pts": (0, 3, 5, 90, 91, 700), "time_base": Fraction(1, 90)}),
    "B-frames": ("mp4", {"options": {"preset": "medium", "bf": "3"}}),
    "rotated": ("mp4", {"width": HEIGHT, "height": WIDTH, "picture": turned, "rotation": 90}),
    "interlaced": ("mp4", {"interlaced": True}),
    "interlaced MPEG-2": ("mpg", {"codec": "mpeg2video", "interlaced": True, "audio": False}),
    "without sound": ("mp4", {"audio": False}),
}


@pytest.mark.parametrize("written", ["mp4", "mkv"])
@pytest.mark.parametrize("odd", ODD)
def test_each_frame_comes_out_once_upright_and_in_time(cli, tmp_path, fake, odd, written):
    suffix, made = ODD[odd]
    made = {"audio": True} | made
    clip = make_clip(tmp_path / f"clip.{suffix}", **made)
    output = tmp_path / f"out.{written}"
    code, _, err = cli(clip, output, *fake, "--strength", 0.2, "--label", 0)
    assert code == 0, err

    with av.open(str(clip)) as container:
        given = list(container.decode(video=0))
    with av.open(str(output)) as container:
        assert len(container.streams.audio) == made["audio"]
        drawn = list(container.decode(video=0))
    indices = [read_index(frame.to_ndarray(format="gray")[:HEIGHT, :WIDTH]) for frame in drawn]
    assert indices == list(range(len(given)))
    tick = max(given[0].time_base, drawn[0].time_base)
    for before, after in zip(given, drawn, strict=True):
        moved = after.pts * after.time_base - before.pts * before.time_base
        assert abs(moved) <= tick
    sides = made.get("width", WIDTH), made.get("height", HEIGHT)
    if "rotation" in made:
        sides = sides[::-1]
    assert (drawn[0].width, drawn[0].height) == tuple(side + side % 2 for side in sides)

"""Known colours come back through encoder, decoder and `Frame.rgb`."""

import av
import numpy as np
import pytest

from stream.colour import ColourTags
from stream.sources.door import LEFT_COLOURED
from stream.sources.file import FileSource
from tests.builders import make_clip

PATCHES = [
    (16, 16, 16), (128, 128, 128), (240, 240, 240), (200, 40, 40), (40, 200, 40), (40, 40, 200),
    (200, 200, 40), (40, 200, 200), (200, 40, 200), (250, 150, 90), (12, 90, 160), (90, 60, 30),
]  # fmt: skip
SIDE = 16


def patches(height: int = 32) -> np.ndarray:
    row = np.repeat(np.array(PATCHES, np.uint8), SIDE, axis=0)
    return np.repeat(row[None], height, axis=0)


def patch_error(path) -> tuple[int, ColourTags, tuple[str, ...]]:
    """Largest difference at the centres of the patches."""
    with FileSource(path) as source:
        frame = next(iter(source))
        notes = source.info.notes
    centres = frame.rgb()[frame.height // 2, SIDE // 2 :: SIDE].astype(int)
    return int(np.abs(centres - PATCHES).max()), frame.colour, notes


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
def test_stated_matrix_and_range_are_honoured(tmp_path, matrix, full, codec):
    colour = ColourTags(matrix, full, 1, 1)
    clip = make_clip(
        tmp_path / "c.mkv", width=SIDE * len(PATCHES), height=32, frames=1, codec=codec,
        colour=colour, picture=lambda index: patches(),
        options={"qp": "0"} if codec == "libx264" else {},
    )  # fmt: skip
    error, tags, notes = patch_error(clip)
    assert tags == colour
    assert error <= 3
    assert notes == ()


@pytest.mark.parametrize(("height", "matrix"), [(32, "bt601"), (720, "bt709")])
def test_unstated_matrix_goes_by_size_and_is_said(tmp_path, height, matrix):
    made_with = ColourTags(matrix)

    def untagged(index: int):
        frame = av.VideoFrame.from_ndarray(patches(height), "rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace={"bt601": 5, "bt709": 1}[matrix], dst_color_range=1
        )
        frame.colorspace, frame.color_range = 2, 0
        return frame

    clip = make_clip(
        tmp_path / "u.mp4", width=SIDE * len(PATCHES), height=height, frames=1, picture=untagged,
        options={"qp": "0"},
    )  # fmt: skip
    error, tags, notes = patch_error(clip)
    assert (tags.matrix, tags.full_range) == (made_with.matrix, False)
    assert error <= 3
    assert any("no colour matrix stated" in note for note in notes)


@pytest.mark.parametrize(("codec", "pixels"), [("ffv1", "bgr0"), ("libx264rgb", "bgr24")])
def test_rgb_video(tmp_path, codec, pixels):
    clip = make_clip(
        tmp_path / "r.mkv", width=SIDE * len(PATCHES), height=32, frames=1,
        codec=codec, pix_fmt=pixels, picture=lambda index: patches(),
        options={"qp": "0"} if codec == "libx264rgb" else {},
    )  # fmt: skip
    error, tags, _ = patch_error(clip)
    assert error <= 3
    assert (tags.matrix, tags.full_range) == ("bt601", False)


@pytest.mark.parametrize("pixels", ["yuv444p10le", "yuv422p", "yuv420p10le"])
@pytest.mark.parametrize("full", [False, True])
def test_matrix_and_range_survive_the_conversion(tmp_path, pixels, full):
    colour = ColourTags("bt709", full, 1, 1)
    clip = make_clip(
        tmp_path / "d.mkv", width=SIDE * len(PATCHES), height=32, frames=1, codec="ffv1",
        pix_fmt=pixels, colour=colour, picture=lambda index: patches(),
    )  # fmt: skip
    error, tags, _ = patch_error(clip)
    assert tags == colour
    assert error <= 3


def test_another_transfer_function_midway_is_told_of(tmp_path):
    parts = [
        make_clip(tmp_path / f"{tags.transfer}.ts", frames=30, colour=tags)
        for tags in (ColourTags("bt2020", False, 9, 16), ColourTags("bt2020", False, 9, 18))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with FileSource(joined) as source:
        assert {frame.colour.transfer for frame in source} == {16}
    assert source.counts[LEFT_COLOURED] == 30


def test_what_hdr_says_of_its_making_is_told_to_be_lost(tmp_path):
    master = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    clip = make_clip(
        tmp_path / "c.mp4", frames=5, codec="libx265", pix_fmt="yuv420p10le",
        options={"x265-params": f"log-level=error:repeat-headers=1:master-display={master}"},
    )  # fmt: skip
    with FileSource(clip) as source:
        assert "HDR mastering data in the pictures: not carried over" in source.info.notes

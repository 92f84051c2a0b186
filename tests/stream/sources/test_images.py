"""Still pictures."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream.errors import SourceError
from stream.sources.images import OTHER_SIZE, STILLED, UNREADABLE, ImagesSource, pictures_in
from tests.builders import counted_picture, read_index


def save(path: Path, index: int, width: int = 96, height: int = 64) -> Path:
    assert cv2.imwrite(str(path), counted_picture(index, width, height)[..., ::-1])
    return path


def test_natural_order_of_a_directory(tmp_path):
    for index in (10, 2, 1):
        save(tmp_path / f"shot{index}.PNG", index)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "sub.png").mkdir()
    with ImagesSource(pictures_in(tmp_path)) as source:
        assert [read_index(f.y) for f in source] == [1, 2, 10]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp", "ppm"])
def test_formats(tmp_path, suffix):
    path = save(tmp_path / f"p.{suffix}", 5)
    with ImagesSource([path]) as source:
        (frame,) = source
    difference = np.abs(frame.rgb().astype(int) - counted_picture(5, 96, 64))
    assert difference[40:].mean() < 4
    assert source.info.codec == suffix
    assert (source.info.live, source.info.frames_declared) == (False, 1)


@pytest.mark.parametrize("suffix", ["webp", "png", "tif"])
@pytest.mark.parametrize("pictures", [1, 3])
def test_an_animation_is_said_to_be_shown_in_part(tmp_path, suffix, pictures):
    path = tmp_path / f"a.{suffix}"
    animation = cv2.Animation()
    animation.frames = [counted_picture(i, 96, 64) for i in range(pictures)]
    animation.durations = [100] * pictures
    if pictures == 1:
        save(path, 0)
    elif suffix == "tif":
        cv2.imwritemulti(str(path), animation.frames)
    else:
        cv2.imwriteanimation(str(path), animation)
    with ImagesSource([path]) as source:
        assert [read_index(f.y) for f in source] == [0]
    assert source.counts[STILLED] == (pictures > 1)


def test_colours_are_tagged_as_made(tmp_path):
    flat = np.full((8, 8, 3), (40, 90, 200), np.uint8)
    cv2.imwrite(str(tmp_path / "f.png"), flat[..., ::-1])
    (frame,) = ImagesSource([tmp_path / "f.png"])
    assert np.abs(frame.rgb().astype(int) - flat).max() <= 2
    assert (frame.colour.matrix, frame.colour.full_range) == ("bt709", False)


def test_sixteen_bits_alpha_and_grey(tmp_path):
    value = 150
    pictures = {
        "deep.png": np.full((4, 6, 3), value * 257, np.uint16),
        "alpha.png": np.full((4, 6, 4), value, np.uint8),
        "grey.png": np.full((4, 6), value, np.uint8),
    }
    for name, picture in pictures.items():
        cv2.imwrite(str(tmp_path / name), picture)
        (frame,) = ImagesSource([tmp_path / name])
        assert np.abs(frame.rgb().astype(int) - value).max() <= 2


def exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF segment that holds only this orientation (tag 0x0112)."""
    entry = (0x0112).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
    tiff = b"II*\0" + (8).to_bytes(4, "little") + (1).to_bytes(2, "little") + entry
    tiff += orientation.to_bytes(4, "little") + bytes(4)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    stored = counted_picture(5, 96, 64)
    ok, jpeg = cv2.imencode(".jpg", stored[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert ok
    path = tmp_path / "e.jpg"
    path.write_bytes(exif_orientation(jpeg.tobytes(), orientation))
    # EXIF 2.3, 4.6.4: where the stored row 0 and column 0 belong.
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(stored, 1),
    }[orientation]
    (frame,) = ImagesSource([path])
    assert frame.rgb().shape == upright.shape
    assert np.abs(frame.rgb().astype(int) - upright).mean() < 4


def test_unreadable_pictures_are_counted_and_keep_their_place_in_time(tmp_path):
    paths = [save(tmp_path / f"{i}.png", i) for i in range(5)]
    paths[1].write_bytes(b"no picture")
    paths[2].write_bytes(b"")
    with ImagesSource(paths, fps=10) as source:
        frames = list(source)
    assert [read_index(f.y) for f in frames] == [0, 3, 4]
    assert [f.index for f in frames] == [0, 1, 2]
    assert [f.file for f in frames] == [str(paths[i]) for i in (0, 3, 4)]
    assert [f.pts_seconds for f in frames] == [0.0, 0.3, 0.4]
    assert source.counts == {UNREADABLE: 2}


def test_sizes_may_differ_and_are_counted(tmp_path):
    paths = [save(tmp_path / "0.png", 0), save(tmp_path / "1.png", 1, 51, 33)]
    with ImagesSource(paths) as source:
        shapes = [f.y.shape for f in source]
    assert shapes == [(64, 96), (33, 51)]
    assert source.counts == {OTHER_SIZE: 1}


def test_the_rate_sets_the_stamps(tmp_path):
    paths = [save(tmp_path / f"{i}.png", i) for i in range(3)]
    with ImagesSource(paths, fps=29.97) as source:
        assert source.info.fps_declared == Fraction(30000, 1001)
        assert [f.pts * f.time_base for f in source][-1] == Fraction(2002, 30000)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["none.png"], r"none\.png: picture can't be read \(No such file or directory\); check"),
        (["bad.png"], r"bad\.png: picture can't be read \(not a readable image\)"),
        (["bad.png", "none.png"], "none of 2 pictures can be read"),
    ],
)
def test_nothing_readable_is_refused(tmp_path, names, message):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(SourceError, match=message):
        ImagesSource([tmp_path / name for name in names])


def test_a_picture_in_a_forbidden_folder_is_not_called_absent(unprivileged):
    (unprivileged / "locked").mkdir()
    picture = save(unprivileged / "locked" / "0.png", 0)
    picture.parent.chmod(0)
    with pytest.raises(SourceError, match=r"0\.png: picture can't be read \(Permission denied\)"):
        ImagesSource([picture])


def test_no_pictures_at_all():
    with pytest.raises(SourceError, match="shots/: no pictures in it"):
        ImagesSource([], name="shots/")

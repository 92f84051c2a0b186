import os
import re
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from nem.pictures import decode, files_below, is_image, no_pictures, read_image


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, :16] = 255
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    # An EXIF block that says "turn clockwise by 90 degrees" (orientation 6).
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    exif = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + exif + jpeg[2:])
    turned = read_image(str(path))
    assert turned.shape == (32, 16, 3)
    assert turned[:12].min() > 200
    assert turned[20:].max() < 50


def test_what_is_no_picture_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="empty file"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(ValueError, match="not a readable image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(OSError, match="gone"):
        read_image(tmp_path / "gone.png")
    assert is_image(Path("a.JPG"))
    assert not is_image(Path("a.mp4"))


def test_a_picture_says_nothing_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (9, 9, 3)).astype(np.uint8)
    png = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    profile = (400).to_bytes(4) + bytes(range(32)) + b"acsp" + bytes(range(180)) * 2
    body = b"iCCP\x1b]0;title\x07\0\0" + zlib.compress(profile)
    chunk = (len(body) - 4).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)
    path = tmp_path / "named.png"
    path.write_bytes(png[:33] + chunk + png[33:])  # behind the header
    np.testing.assert_array_equal(read_image(path), picture)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_picture_is_told_by_its_error_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.ppm"
    path.write_bytes(b"P6 100 100 255\n" + bytes(99))
    with pytest.raises(ValueError, match="not a readable image"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_a_picture_too_large_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, kind: type) -> None:
        raise MemoryError

    (tmp_path / "large.png").write_bytes(b"0")
    monkeypatch.setattr(np, "fromfile", full)
    with pytest.raises(ValueError, match="too large for the memory"):
        read_image(tmp_path / "large.png")


def test_what_opencv_can_not_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    many = np.frombuffer(b"P5 40000 40000 255\n" + bytes(99), np.uint8)
    with pytest.raises(ValueError, match=r"^more pixels than OpenCV reads; .*_MAX_IMAGE_PIXELS$"):
        decode(many)

    def full(data: object, flags: int) -> None:
        error = cv2.error("no room")
        error.code, error.err = cv2.Error.StsNoMem, "Failed to allocate 2700000000 bytes"
        raise error

    monkeypatch.setattr(cv2, "imdecode", full)
    with pytest.raises(ValueError, match=r"^too large for the memory$"):
        decode(many)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="is no regular file"):
        read_image(tmp_path / "pipe.png")


def test_linked_folders_are_searched_once_and_loops_end(tmp_path: Path) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    for folder in (data / "b", store / "deep"):
        folder.mkdir(parents=True)
        (folder / "x.png").touch()
    (data / "a").symlink_to(store)
    (data / "b" / "up").symlink_to(data)
    (data / "c").symlink_to(store / "deep")
    found = [path.relative_to(data).as_posix() for path in files_below(data, is_image)]
    assert found == ["a/deep/x.png", "b/x.png"]


@pytest.mark.parametrize(
    ("given", "say"),
    [
        ("photo.jpg", "got str; give a numpy array, of a file nem.pictures.read_image"),
        (None, "got NoneType"),
        (np.ones((4, 5, 3)), r"got float64 \(4, 5, 3\); of values in 0 .. 1 take \(255"),
        (np.ones((4, 5), np.uint8), r"got uint8 \(4, 5\); of a grey picture take np.stack"),
        (np.ones((4, 5, 4), np.uint8), "leave the fourth channel out"),
        (np.ones((3, 4, 5), np.uint8), r"channels come last: np.moveaxis\(x, -3, -1\)"),
        (np.ones((4, 0, 3), np.uint8), r"N, H, W >= 1, got uint8 \(4, 0, 3\)$"),
        (np.ones((4, 5, 3), np.int64), r"got int64 \(4, 5, 3\)$"),
    ],
)
def test_what_is_given_in_the_place_of_pictures_is_told(given: object, say: str) -> None:
    told = no_pictures(given)
    assert told is not None
    assert re.search(say, told)
    assert told.startswith("expected RGB uint8 (H, W, 3) or (N, H, W, 3)")
    assert "\n" not in told


def test_pictures_are_pictures() -> None:
    one = np.ones((3, 4, 3), np.uint8)
    assert no_pictures(one) is no_pictures(one[None]) is None
    assert no_pictures(one[None], one=False) is None
    assert "of one picture take x[None]" in str(no_pictures(one, one=False))


def test_a_folder_that_may_be_listed_and_not_entered_stops_no_search(unprivileged: Path) -> None:
    for folder in ("locked", "open"):
        (unprivileged / folder).mkdir()
        (unprivileged / folder / "x.png").touch()
    (unprivileged / "locked").chmod(0o444)
    found = [path.parent.name for path in files_below(unprivileged, is_image)]
    assert found == ["locked", "open"]
    with pytest.raises(PermissionError):  # how such a one is told of
        read_image(unprivileged / "locked" / "x.png")

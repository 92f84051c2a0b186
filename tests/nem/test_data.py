import gc
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from nem.data import PictureData, collect, normalise, read_video
from nem.errors import DataError
from nem.pictures import read_image, squash
from stream.colour import ColourTags
from stream.sources.file import FileSource
from tests.builders import make_clip
from tests.nem.toys import shapes, write_pictures


def write_video(path: Path, count: int = 7, *, rotation: int = 0, hflip: bool = False) -> Path:
    """Frames of flat grey 20, 40, 60, ...; the left half of each is black."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        if rotation or hflip:
            stream.set_display_rotation(rotation, hflip=hflip)
        for i in range(count):
            picture = np.full((32, 64, 3), 20 * (i % 12 + 1), np.uint8)
            picture[:, :32] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_pictures(tmp_path / "data", shapes(3, 0, 48)[0])
    (folder / "deep").mkdir()
    write_video(folder / "deep" / "v.mp4")
    return folder


def test_images_and_every_third_frame_are_collected_in_order(folder: Path) -> None:
    seen = []
    collection = collect([folder], 32, every=3, progress=lambda *done: seen.append(done))
    names = [Path(item.name).name for item in collection.items]
    assert names == ["000.png", "001.png", "002.png", "v.mp4#0", "v.mp4#3", "v.mp4#6"]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not collection.skipped
    for index, item in enumerate(collection.items[:3]):
        pixels = collection.pixels(index)
        np.testing.assert_array_equal(pixels, squash(read_image(item.path), 32))
        assert pixels.shape == (32, 32, 3)
    for index, grey in ((3, 20), (4, 80), (5, 140)):
        right = collection.pixels(index)[:, 20:]
        assert abs(right.mean() - grey) < 6
        assert collection.pixels(index)[:, :12].mean() < 6


def test_pictures_are_rgb_and_squashed_whole(tmp_path: Path) -> None:
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, :30] = (250, 10, 10)
    write_pictures(tmp_path, picture[None])
    pixels = collect([tmp_path / "000.png"], 16).pixels(0)
    assert tuple(pixels[8, 0]) == (250, 10, 10)
    assert tuple(pixels[8, 15]) == (0, 0, 0)
    assert (pixels[:, :7, 0] == 250).all()


def test_display_rotation_is_applied(tmp_path: Path) -> None:
    (frame,) = read_video(write_video(tmp_path / "v.mp4", 1, rotation=90), 1)
    assert frame.shape == (64, 32, 3)
    # Counter-clockwise: what was right is now on top.
    assert frame[:28].min() > 10
    assert frame[36:].max() < 10


def seen_and_explained(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first pictures that training and use have of a video, int (32, 32, 3)."""
    with FileSource(path) as source:
        explained = next(iter(source)).rgb((32, 32))
    return squash(next(read_video(path, 1)), 32).astype(int), explained.astype(int)


def slope(index: int) -> np.ndarray:
    rows, columns = np.mgrid[:64, :96].astype(np.uint8)
    return np.stack([20 + 2 * columns, 20 + 2 * rows, 60 + rows + columns], 2).astype(np.uint8)


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_video_is_trained_on_as_it_is_explained(
    tmp_path: Path, rotation: int, hflip: bool
) -> None:
    path = make_clip(
        tmp_path / "v.mp4", frames=1, rotation=rotation, hflip=hflip, picture=slope,
        options={"qp": "0"},
    )  # fmt: skip
    seen, explained = seen_and_explained(path)
    assert np.abs(seen - explained).mean() < 1
    assert abs((seen - explained).mean()) < 0.3  # nor is it darker


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixels", ["gray", "gray10le", "ya8"])
def test_grey_is_trained_on_in_the_range_it_is_explained_in(
    tmp_path: Path, pixels: str, full: bool
) -> None:
    path = make_clip(
        tmp_path / "v.mkv", frames=1, picture=slope, codec="ffv1", pix_fmt=pixels,
        colour=ColourTags("bt709", full_range=full),
    )  # fmt: skip
    seen, explained = seen_and_explained(path)
    assert np.abs(seen - explained).max() <= 2


def test_interlaced_video_is_trained_on_as_it_is_explained(tmp_path: Path) -> None:
    def combed(index: int) -> np.ndarray:
        rgb = np.full((64, 96, 3), 60, np.uint8)
        rgb[1::2, 24 + 48 * (index % 2) :] = 200  # the lower field is taken later
        return rgb

    path = make_clip(
        tmp_path / "v.mp4", frames=5, interlaced=True, picture=combed, rotation=90,
        options={"qp": "0"},
    )  # fmt: skip
    with FileSource(path) as source:
        explained = [frame.rgb((96, 64)).astype(int) for frame in source]
    seen = [picture.astype(int) for picture in read_video(path, 1)]
    assert [np.abs(a - b).mean() < 4 for a, b in zip(seen, explained, strict=True)] == [True] * 5


def test_bad_files_are_skipped_and_listed(folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "bad.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not asked for, not listed")
    collection = collect([folder], 32)
    assert len(collection) == 4
    skipped = {s.path.name: s.reason for s in collection.skipped}
    assert sorted(skipped) == ["bad.mp4", "bad.png", "empty.jpg"]
    assert skipped["empty.jpg"] == "empty file"
    assert all(skipped.values())
    given = collect([folder, folder / "notes.txt"], 32)
    assert {s.path.name for s in given.skipped} >= {"notes.txt"}


def test_a_folder_that_can_not_be_listed_is_told(folder: Path, lock: Callable[[str], None]) -> None:
    lock("deep")
    collection = collect([folder], 32)
    assert len(collection) == 3
    told = [(skip.path, skip.reason) for skip in collection.skipped]
    assert told == [(folder / "deep", "folder can't be read: Permission denied")]


def test_a_cut_video_gives_what_is_whole(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mkv", 40)
    count = len(list(read_video(whole, 1)))
    assert count == 40
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    assert 0 < len(collect([tmp_path], 32, every=1)) < 40


def test_nothing_usable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable picture"):
        collect([tmp_path], 32)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 files skipped, first: .*bad.png: not a readable"):
        collect([tmp_path], 32)
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        collect([tmp_path / "nowhere"], 32)


def test_beyond_the_memory_images_are_read_again_and_videos_refused(folder: Path) -> None:
    one = 32 * 32 * 3
    images = sorted(folder.glob("*.png"))
    small, large = collect(images, 32, keep_bytes=2 * one), collect(images, 32)
    assert [item.pixels is None for item in small.items] == [False, False, True]
    for index in range(3):
        np.testing.assert_array_equal(small.pixels(index), large.pixels(index))
    images[2].unlink()
    with pytest.raises(DataError, match="was readable, is no longer"):
        small.pixels(2)
    with pytest.raises(DataError, match=r"v.mp4: video frames beyond 0 MiB"):
        collect([folder], 32, keep_bytes=4 * one, every=1)


def test_photos_make_room_for_video_frames(folder: Path) -> None:
    one = 32 * 32 * 3
    photos = sorted(folder.glob("*.png"))
    small = collect([*photos, folder / "deep"], 32, keep_bytes=3 * one)
    large = collect([*photos, folder / "deep"], 32)
    assert [item.name for item in small.items] == [item.name for item in large.items]
    assert [item.pixels is None for item in large.items] == [False] * 4
    assert [item.pixels is None for item in small.items] == [False, False, True, False]
    for index in range(4):
        np.testing.assert_array_equal(small.pixels(index), large.pixels(index))


def test_a_list_of_other_files_is_no_video(folder: Path) -> None:
    write_video(folder / "other.mp4").rename(folder / "other.bin")
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile other.bin\n")
    found = collect([folder], 16)
    assert [(s.path.name, s.reason) for s in found.skipped] == [
        ("list.mp4", "not a readable video (Invalid argument)")
    ]


def test_a_video_of_an_unknown_codec_is_skipped(folder: Path) -> None:
    clip = folder / "deep" / "v.mp4"
    clip.write_bytes(clip.read_bytes().replace(b"avc1", b"zzz1").replace(b"avcC", b"free"))
    (folder / "empty.mkv").write_bytes(bytes(5000))
    found = collect([folder], 32)
    assert len(found) == 3
    assert {skip.path.name for skip in found.skipped} == {"v.mp4", "empty.mkv"}
    assert all("not a readable video" in skip.reason for skip in found.skipped)


def test_damage_within_a_video_costs_only_the_frames_it_hits(tmp_path: Path) -> None:
    clip, damaged = write_video(tmp_path / "v.mp4", 12), tmp_path / "damaged.mkv"
    with av.open(clip) as source, av.open(damaged, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            mux = av.Packet(b"\xff" * packet.size) if number == 5 else packet
            mux.pts, mux.dts, mux.time_base = packet.pts, packet.dts, packet.time_base
            mux.stream = stream
            target.mux(mux)
    frames = list(read_video(damaged, 1))
    assert 10 <= len(frames) <= 11  # not the 5 before the damage alone
    assert abs(int(frames[-1][16, 48, 0]) - 20 * 12) < 8


@pytest.mark.parametrize("height", [360, 720])
def test_untagged_video_has_the_colours_that_it_is_explained_in(
    tmp_path: Path, height: int
) -> None:
    path = tmp_path / "c.mp4"
    picture = np.full((height, 64, 3), (220, 40, 30), np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
        matrix = "ITU709" if height >= 720 else "ITU601"
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=matrix)
        frame.colorspace = 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    [seen] = read_video(path, 1)
    assert abs(seen[height // 2, 32].astype(int) - (220, 40, 30)).max() <= 3


def test_no_frame_outlives_the_reading_of_a_video(tmp_path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        before = sum(type(one) is av.VideoFrame for one in gc.get_objects())
        path = write_video(tmp_path / "v.mp4", 20, rotation=90)
        assert sum(1 for _ in read_video(path, 1)) == 20
        after = sum(type(one) is av.VideoFrame for one in gc.get_objects())
    finally:
        gc.enable()
    assert after - before <= 1


def test_a_file_named_twice_counts_once(folder: Path) -> None:
    assert len(collect([folder, folder / "000.png", folder], 32)) == 4


def test_normalise_undoes_mean_and_deviation(folder: Path) -> None:
    data = PictureData(collect([folder], 32))
    pixels, index = data[1]
    assert (len(data), index, pixels.dtype) == (4, 1, torch.uint8)
    x = normalise(pixels[None], (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
    assert x.shape == (1, 3, 32, 32)
    expected = (pixels[5, 7] / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.25, 0.5])
    torch.testing.assert_close(x[0, :, 5, 7], expected)


def test_real_videos_and_photos(real_data: Path, tmp_path: Path) -> None:
    shutil.copy(real_data / "davis" / "camel.mp4", tmp_path)
    for photo in sorted((real_data / "imagenet-sample").glob("*.webp"))[:5]:
        shutil.copy(photo, tmp_path)
    collection = collect([tmp_path], 64, every=30)
    assert not collection.skipped
    assert len(collection) > 5 + 1
    assert all(collection.pixels(i).std() > 5 for i in range(len(collection)))

"""Pictures to train on: folders of images and video files, squashed to the model's square input.

Everything is decoded once when it is collected, so files that can't be read are known before the
training starts. What fits in `keep_bytes` stays decoded in memory; beyond that image files are
read again each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation
from torch import Tensor
from torch.utils.data import Dataset

from nem.deinterlace import deinterlace
from nem.errors import DataError, first_line
from nem.orientation import Orientation, read_orientation
from nem.pictures import Picture, files_below, is_image, is_media, is_video, read_image, squash
from nem.videos import is_limited_grey, open_video, video_track

_READ_AHEAD = 64
UNTAGGED, BT709, HD_LINES = 2, 1, 720
"""Matrices by their number (ISO/IEC 23091-2). Untagged HD is 709, as when it is explained."""
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Without, FFmpeg's way to RGB is a level or two too dark."""
FROM_LIMITED = np.rint((np.arange(256) - 16) * 255 / 219).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One picture: where it came from, and its RGB pixels (S, S, 3) if they are kept in memory.

    `size` is that of its file, in bytes.
    """

    name: str
    path: Path
    size: int
    pixels: Picture | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """Usable pictures in a fixed order, and the files that were skipped."""

    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    size: int

    def __len__(self) -> int:
        return len(self.items)

    def pixels(self, index: int) -> Picture:
        """RGB uint8 (S, S, 3) of one picture.

        Raises:
            DataError: the file can no longer be read.
        """
        item = self.items[index]
        if item.pixels is not None:
            return item.pixels
        try:
            return squash(read_image(item.path), self.size)
        except (OSError, ValueError) as error:
            raise DataError(f"{item.path}: was readable, is no longer: {error}") from None


def collect(
    paths: Iterable[Path | str],
    size: int,
    *,
    every: int = 10,
    keep_bytes: int = 2 << 30,
    progress: Callable[[int, int], None] | None = None,
) -> Collection:
    """Gather all images and video frames below some paths.

    Args:
        paths: image files, video files, and folders of them (searched to the bottom).
        size: side of the square every picture is squashed to, in pixels; nothing is cropped.
        every: of a video, take each `every`-th frame.
        keep_bytes: memory for decoded pictures.
        progress: called with files done and files in all.

    Raises:
        DataError: a path is missing, nothing usable was found, or the video frames do not fit
            in `keep_bytes`.
    """
    files, skipped = _find(paths)
    items: list[Item] = []
    photos: list[int] = []  # those in memory, which give way to video frames
    room = keep_bytes
    for done, (path, pictures) in enumerate(_read_all(files, size, every), 1):
        if progress is not None:
            progress(done, len(files))
        try:
            stored = path.stat().st_size
            for index, picture in enumerate(pictures):
                video = is_video(path)
                name = f"{path}#{index * every}" if video else str(path)
                while video and photos and room < picture.nbytes:
                    place = photos.pop()
                    items[place] = replace(items[place], pixels=None)
                    room += picture.nbytes
                fits = room >= picture.nbytes
                if video and not fits:
                    raise DataError(
                        f"{path}: video frames beyond {keep_bytes >> 20} MiB of memory; take "
                        f"fewer (every {every}th now) or allow more"
                    )
                if fits:
                    room -= picture.nbytes
                    photos += [] if video else [len(items)]
                items.append(Item(name, path, stored, picture if fits else None))
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            skipped.append(Skipped(path, first_line(error)))
    if not items:
        first = f", first: {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise DataError(
            f"no usable picture in {', '.join(str(p) for p in paths)} "
            f"({len(skipped)} files skipped{first}); give a folder of images or video files"
        )
    return Collection(tuple(items), tuple(skipped), size)


def check_there(paths: Iterable[Path | str]) -> None:
    """Refuse a path to collect from that is missing.

    Raises:
        DataError: there is no such file or folder.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; give images, videos or folders")


def read_video(path: Path, every: int) -> Iterator[Picture]:
    """Each `every`-th frame of a video, RGB uint8 (H, W, 3), upright and whole as when explained.

    Raises:
        ValueError: not a video, or no frame in it.
        OSError: the file can't be read.
    """
    count = 0
    try:
        with open_video(path) as container:
            stream = video_track(container)
            if stream is None:
                raise ValueError("no video stream")
            stream.thread_type = "AUTO"
            frames = deinterlace(_frames(container, stream), Counter())
            upright = Orientation()
            for count, frame in enumerate(frames, 1):
                if count == 1:  # a frame asked for its side data lives until gc finds it
                    upright = read_orientation(frame) or upright
                if (count - 1) % every == 0:
                    if frame.colorspace == UNTAGGED and frame.height >= HD_LINES:
                        frame.colorspace = BT709
                    # More threads would be waited for in vain by a forked process that frees them.
                    rgb = frame.to_rgb(interpolation=EXACT, threads=1).to_ndarray()
                    if is_limited_grey(frame, stream.codec_context.codec.canonical_name):
                        rgb = FROM_LIMITED[rgb]
                    yield upright.apply(np.asarray(rgb, np.uint8))
    except av.FFmpegError as error:  # of many kinds, some of them no OSErrors
        raise ValueError(f"not a readable video ({error.strerror})") from None
    if count == 0:
        raise ValueError("no frame in it")


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    """Frames of a stream. Damage costs the frames it hits, not those before or after it."""
    packets = container.demux(stream)
    whole, damage = 0, None
    while True:
        try:
            frames = next(packets).decode()
        except StopIteration:
            break
        except av.FFmpegError as error:
            damage = error
            continue
        whole += len(frames)
        yield from frames
    if damage is not None and not whole:
        raise damage


def normalise(pictures: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pictures uint8 (N, S, S, 3) to float32 (N, 3, S, S) with mean 0 and deviation 1."""
    x = pictures.permute(0, 3, 1, 2).float() / 255
    shape = (1, 3, 1, 1)
    return (x - x.new_tensor(mean).view(shape)) / x.new_tensor(std).view(shape)


class PictureData(Dataset[tuple[Tensor, int]]):
    """A collection as torch data: (uint8 (S, S, 3), index)."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def __len__(self) -> int:
        return len(self.collection)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.collection.pixels(index)), index


def _find(paths: Iterable[Path | str]) -> tuple[list[Path], list[Skipped]]:
    """Files to read, sorted within each path and none twice; what is left out already."""
    files: dict[Path, None] = {}
    skipped: list[Skipped] = []

    def unlisted(error: OSError) -> None:
        skipped.append(Skipped(Path(error.filename), f"folder can't be read: {error.strerror}"))

    given = [Path(path) for path in paths]
    check_there(given)
    for path in given:
        if path.is_dir():
            files.update(dict.fromkeys(files_below(path, is_media, unlisted)))
        elif is_media(path):
            files[path] = None
        else:
            skipped.append(Skipped(path, "neither an image nor a video by its suffix"))
    return list(files), skipped


def _read_all(
    files: Sequence[Path], size: int, every: int
) -> Iterator[tuple[Path, Iterable[Picture]]]:
    """Each file with its squashed pictures, in order; images are decoded by threads ahead."""

    def image(path: Path) -> Picture:
        return squash(read_image(path), size)

    with ThreadPoolExecutor(thread_name_prefix="collect") as pool:
        for start in range(0, len(files), _READ_AHEAD):
            part = files[start : start + _READ_AHEAD]
            jobs = {path: pool.submit(image, path) for path in part if is_image(path)}
            for path in part:
                if path in jobs:
                    yield path, (job.result() for job in [jobs[path]])
                else:
                    yield path, (squash(frame, size) for frame in read_video(path, every))

"""Building a gallery: every picture below a folder goes once through a model. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nem.bundle import Bundle
from nem.errors import DataError, reason_of
from nem.gallery import Gallery, GalleryManifest, Skipped
from nem.pictures import Picture, files_below, is_image, read_image, squash

THUMBNAIL = 96
"""Longest side of a kept picture, in pixels."""
_QUALITY = 85

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""RGB frames, uint8 (N, S, S, 3), to embeddings, float32 (N, D)."""
Progress = Callable[[int, int], None]


def build_gallery(
    folder: Path | str,
    embed: Embed,
    bundle: Bundle,
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Gallery:
    """Embed all pictures below a folder.

    Args:
        folder: searched to the bottom; a picture's label is the folder directly below this one
            that it lies in.
        embed: the model, as `lambda frames: engine.run(frames).embedding`. It gets pictures
            squashed to the bundle's input size.
        bundle: the bundle `embed` runs.
        batch_size: pictures per call of `embed`.
        progress: called with files done and files in all.

    Raises:
        DataError: no such folder, no readable picture in it, or embeddings that are not finite
            or not of one length.
    """
    folder = Path(folder)
    skipped: list[Skipped] = []

    def unlisted(error: OSError) -> None:
        name = _text(Path(error.filename).relative_to(folder).as_posix())
        skipped.append(Skipped(name=name, reason=f"folder can't be read: {error.strerror}"))

    files = pictures_below(folder, unlisted)
    side = bundle.manifest.input_size
    names: list[str] = []
    frames: list[Picture] = []
    thumbnails: list[bytes] = []
    embeddings: list[NDArray[np.float32]] = []
    for done, (name, path) in enumerate(files.items(), 1):
        try:
            picture = read_image(path)
        except (OSError, ValueError) as error:
            skipped.append(Skipped(name=name, reason=reason_of(error)))
        else:
            names.append(name)
            thumbnails.append(_thumbnail(picture))
            frames.append(squash(picture, side))
        if frames and (len(frames) == batch_size or done == len(files)):
            embeddings.append(_embedded(embed, frames))
            frames = []
        if progress is not None:
            progress(done, len(files))
    if not names:
        first = f" ({len(skipped)} unreadable, first: {skipped[0].reason})" if skipped else ""
        raise DataError(f"{folder}: no picture in it{first}; give a folder of pictures")
    if len({part.shape[1] for part in embeddings}) > 1:
        raise DataError(f"{folder}: the model's embeddings differ in length")
    manifest = GalleryManifest(
        bundle=bundle.manifest.name,
        backbone=bundle.manifest.backbone.sha256,
        input_size=side,
        mean=bundle.manifest.mean,
        std=bundle.manifest.std,
        names=tuple(names),
        labels=tuple(name.split("/")[0] if "/" in name else "" for name in names),
        skipped=tuple(skipped),
    )
    offsets = np.cumsum([0, *map(len, thumbnails)], dtype=np.int64)
    packed = np.frombuffer(b"".join(thumbnails), np.uint8)
    return Gallery(manifest, np.concatenate(embeddings), packed, offsets)


def pictures_below(
    folder: Path, unlisted: Callable[[OSError], None] | None = None
) -> dict[str, Path]:
    """Pictures below a folder, by their path in it with slashes; sorted.

    `unlisted` is called for each folder that can't be listed.

    Raises:
        DataError: it is no folder.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: expected a folder of pictures, found {found}")
    files = files_below(folder, is_image, unlisted)
    # File names may hold bytes that are no text, which JSON can't.
    named = ((_text(path.relative_to(folder).as_posix()), path) for path in files)
    return dict(sorted(named))


def _text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _embedded(embed: Embed, frames: list[Picture]) -> NDArray[np.float32]:
    embedding = np.array(embed(np.stack(frames)), np.float32)
    if embedding.ndim != 2 or len(embedding) != len(frames) or not np.isfinite(embedding).all():
        raise DataError(
            f"the model gave {embedding.shape} for {len(frames)} pictures: expected finite "
            "embeddings (N, D)"
        )
    return embedding


def _thumbnail(picture: Picture) -> bytes:
    """JPEG of the picture, shrunk so that its longest side is `THUMBNAIL` at most."""
    height, width = picture.shape[:2]
    scale = min(1.0, THUMBNAIL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return bytes(data)

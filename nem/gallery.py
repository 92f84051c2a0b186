"""A gallery: pictures as a model sees them, kept in one file to find look-alikes in. No torch.

One safetensors file, so that opening it executes no code: embeddings, small JPEG pictures, and a
manifest that says of which bundle the embeddings are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nem.bundle import Bundle
from nem.errors import BundleError, DataError, reason_of
from nem.manifest import Frozen, Sha256
from nem.pictures import Picture, decode

FORMAT: Literal[1] = 1
"""The manifest version this package reads and writes."""
_KEY = "nem.gallery"


class Skipped(Frozen):
    """A file that was left out, and why."""

    name: str
    reason: str


class GalleryManifest(Frozen):
    """What a gallery says of itself.

    Attributes:
        format: version of this manifest.
        bundle: name of the bundle whose backbone made the embeddings.
        backbone: SHA-256 of that backbone's tensors.
        input_size, mean, std: how it was shown the pictures, as in the bundle's manifest.
        names: of the pictures, paths relative to their folder, with slashes.
        labels: of each picture the folder it lies in below that folder, "" for none.
        skipped: files that could not be read.
    """

    format: Literal[1] = FORMAT
    bundle: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    backbone: Sha256
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """M pictures with their embeddings.

    Attributes:
        manifest: what they are and which model saw them.
        embeddings: float32 (M, D).
        thumbnails: JPEG files, one after the other, uint8 (bytes,).
        offsets: where each begins and the last ends, int64 (M + 1,).
    """

    manifest: GalleryManifest
    embeddings: NDArray[np.float32]
    thumbnails: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.embeddings)

    def thumbnail(self, index: int) -> Picture:
        """The small picture of example `index`, RGB uint8 (H, W, 3).

        Raises:
            DataError: its bytes are no picture.
        """
        data = self.thumbnails[self.offsets[index] : self.offsets[index + 1]]
        try:
            return decode(data)
        except ValueError:
            name = self.manifest.names[index]
            raise DataError(
                f"gallery: the small picture of {name} is damaged; build it again"
            ) from None

    def check(self, bundle: Bundle) -> None:
        """Refuse a bundle whose embeddings can't be compared with these.

        Raises:
            BundleError: another backbone, or one that is shown pictures in another way.
        """
        own, other = self.manifest, bundle.manifest
        if own.backbone != other.backbone.sha256:
            raise BundleError(
                f"the gallery was built with bundle {own.bundle} (backbone SHA-256 "
                f"{own.backbone[:12]}...), bundle {other.name} has backbone "
                f"{other.backbone.sha256[:12]}...; use that bundle, or build the gallery again"
            )
        shown = [(m.input_size, m.mean, m.std) for m in (own, other)]
        if shown[0] != shown[1]:
            raise BundleError(
                f"the gallery was built with input size, mean and deviation {shown[0]}, bundle "
                f"{other.name} has {shown[1]}; build the gallery again"
            )

    def to_bytes(self) -> bytes:
        """The gallery as the bytes of a file for `read_gallery`."""
        tensors: dict[str, NDArray[Any]] = {
            "embeddings": self.embeddings,
            "thumbnails": self.thumbnails,
            "offsets": self.offsets,
        }
        return save(tensors, {_KEY: self.manifest.model_dump_json()})


def read_gallery(path: Path | str) -> Gallery:
    """Open what `Gallery.to_bytes` gave. Executes no code; checked before anything is believed.

    Raises:
        DataError: missing, damaged, of another version, or no gallery.
    """
    try:
        Path(path).open("rb").close()  # safetensors takes whatever it can't open for missing
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is None:
                raise DataError(f"gallery {path}: a safetensors file, but no gallery")
            manifest = GalleryManifest.model_validate_json(text, strict=True)
            gallery = Gallery(
                manifest, *(file.get_tensor(n) for n in ("embeddings", "thumbnails", "offsets"))
            )
    except FileNotFoundError:
        raise DataError(f"gallery {path}: no such file; build it first") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"gallery {path}: manifest: {where}: {first['msg']}") from None
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: no such type in numpy
        raise DataError(f"gallery {path}: can't be read: {reason_of(error)}") from None
    if problem := _problem(gallery):
        raise DataError(f"gallery {path}: damaged: {problem}; build it again")
    return gallery


def _problem(gallery: Gallery) -> str | None:
    """What is wrong with the parts or between them."""
    embeddings, packed, offsets = gallery.embeddings, gallery.thumbnails, gallery.offsets
    count = len(gallery.manifest.names)
    if embeddings.dtype != np.float32 or embeddings.ndim != 2 or 0 in embeddings.shape:
        return f"embeddings {embeddings.dtype} {embeddings.shape}"
    if not np.isfinite(embeddings).all():
        return "embeddings are not finite"
    if {count, len(gallery.manifest.labels)} != {len(embeddings)}:
        return f"{count} names for {len(embeddings)} embeddings"
    if packed.dtype != np.uint8 or packed.ndim != 1:
        return f"thumbnails {packed.dtype} {packed.shape}"
    if offsets.dtype != np.int64 or offsets.shape != (count + 1,):
        return f"offsets {offsets.dtype} {offsets.shape}"
    if offsets[0] != 0 or offsets[-1] != len(packed) or (np.diff(offsets) <= 0).any():
        return "offsets don't fit the thumbnails"
    return None

"""Pictures with object masks in COCO's format. numpy and OpenCV; pycocotools draws the masks.

A folder as COCO unpacks: `annotations/instances_<set>.json` and the pictures in `<set>/`. What a
mask is (polygons, or run lengths, compressed or not) is left to pycocotools (extra `eval`).
"""

from __future__ import annotations

import importlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nem.errors import DataError, MissingError

PREFIX = "instances_"


@dataclass(frozen=True, slots=True)
class CocoPicture:
    """A picture and its objects, both read when asked for.

    Attributes:
        path: its file.
        size: (height, width) in pixels.
        segmentations: of its objects and crowds, each as `draw_mask` takes it.
    """

    path: Path
    size: tuple[int, int]
    segmentations: tuple[Any, ...]

    def pixels(self) -> NDArray[np.uint8]:
        """RGB uint8 (H, W, 3), not turned by EXIF: the masks belong to the stored pixels.

        Raises:
            DataError: not a readable picture, or of another size than the annotations say.
        """
        try:
            data = np.fromfile(self.path, np.uint8)
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
            picture = cv2.imdecode(data, flags) if data.size else None
        except (OSError, cv2.error) as error:
            raise DataError(f"{self.path}: can't be read: {error}") from None
        if picture is None or picture.shape[:2] != self.size:
            found = "no picture" if picture is None else f"{picture.shape[1]}x{picture.shape[0]}"
            raise DataError(
                f"{self.path}: expected a picture of {self.size[1]}x{self.size[0]} as the "
                f"annotations say, found {found}; get the pictures that belong to them"
            )
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

    def object_mask(self) -> NDArray[np.bool_]:
        """Where any object is, crowds included, bool (H, W).

        Raises:
            MissingError: pycocotools is not installed.
            DataError: a mask that can't be drawn.
        """
        drawn = [draw_mask(one, self.size) for one in self.segmentations]
        return np.asarray(np.any(drawn, axis=0))


def open_coco(folder: Path | str) -> list[CocoPicture]:
    """The annotated pictures of a folder, in the annotations' order.

    Pictures without an object are left out, and so are those whose file is not there, so a few
    pictures beside the annotations of all of them will do.

    Args:
        folder: as COCO unpacks, see the module's text; with one set.

    Raises:
        DataError: no such annotations, several of them, not COCO's format, or no picture.
    """
    folder = Path(folder)
    files = sorted((folder / "annotations").glob(f"{PREFIX}*.json"))
    if len(files) != 1:
        raise DataError(
            f"{folder}: expected one annotations/{PREFIX}<set>.json, and the pictures in <set>/; "
            f"found {', '.join(file.name for file in files) or 'none'}"
        )
    (file,) = files
    pictures = folder / file.stem.removeprefix(PREFIX)
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        by_image: dict[int, list[Any]] = {int(image["id"]): [] for image in raw["images"]}
        for annotation in raw["annotations"]:
            by_image[annotation["image_id"]].append(annotation["segmentation"])
        listed = [
            CocoPicture(
                pictures / str(image["file_name"]),
                (int(image["height"]), int(image["width"])),
                tuple(by_image[int(image["id"])]),
            )
            for image in raw["images"]
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{file}: not instance annotations in COCO's format "
            f"({type(error).__name__}: {str(error)[:120]}); expected images, and annotations that "
            "refer to them"
        ) from None
    found = [one for one in listed if one.segmentations and one.path.is_file()]
    if not found:
        raise DataError(
            f"{pictures}: none of the {len(listed)} pictures of {file.name} that have objects is "
            "here; put them into this folder"
        )
    return found


def draw_mask(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """One object's mask, bool (H, W).

    Args:
        segmentation: a list of polygons [x, y, x, y, ...], or {"counts", "size"}: run lengths down
            the columns, as a list or compressed to a string.
        size: (H, W).

    Raises:
        MissingError: pycocotools is not installed.
        DataError: none of these, or of another size.
    """
    tool = _pycocotools()
    try:
        if isinstance(segmentation, list):
            runs = tool.merge(tool.frPyObjects([_polygon(p) for p in segmentation], *size))
        elif isinstance(segmentation["counts"], list):
            runs = tool.frPyObjects(_whole(segmentation), *size)
        else:
            runs = segmentation
        if tuple(runs["size"]) != size:
            raise ValueError(f"size {list(runs['size'])}, the picture's is {list(size)}")
        with warnings.catch_warnings():  # its array type is older than numpy 2
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            return np.asarray(tool.decode(runs), np.bool_)
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise DataError(
            f"segmentation {str(segmentation)[:60]}: can't be drawn ({str(error)[:120]}); expected "
            "polygons of 3 or more points, or run lengths of the picture's size"
        ) from None


def _polygon(points: Any) -> list[float]:
    if len(points) < 6 or len(points) % 2:
        raise ValueError(f"a polygon of {len(points)} numbers")
    return [float(v) for v in points]


def _whole(runs: Any) -> Any:
    """Run lengths that cover their picture; pycocotools would believe others."""
    pixels = int(np.prod(runs["size"]))
    if sum(runs["counts"]) != pixels:
        raise ValueError(f"runs of {sum(runs['counts'])} pixels in a picture of {pixels}")
    return runs


def _pycocotools() -> Any:
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError:
        raise MissingError(
            "masks in COCO's format need pycocotools, which is not installed: "
            "pip install 'nem-stream[eval]'"
        ) from None

"""Make the README's picture: demo photos above, what the default model looks at below.

    python -m scripts.make_pictures docs/images/masks.jpg

Needs the extra `demo`. The photos are scikit-image's, in the public domain or CC0.
"""

from __future__ import annotations

import argparse
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

from engines import resize
from scripts.ending import launch, new_file
from stream import Explainer
from stream.frame import frame_from_rgb
from stream.overlay import Overlay

PHOTOS = ("chelsea", "stereo_motorcycle", "astronaut", "coffee")
TILE = (300, 400)


def photo(name: str) -> NDArray[np.uint8]:
    """A bundled photo, its middle at 4:3, RGB uint8 of twice `TILE`."""
    image = getattr(data, name)()
    if isinstance(image, tuple):  # of two eyes, and how far apart they see
        image = image[0]
    height, width = image.shape[:2]
    h, w = min(height, width * 3 // 4), min(width, height * 4 // 3)
    top, left = (height - h) // 2, (width - w) // 2
    return resize(image[top : top + h, left : left + w], (2 * TILE[0], 2 * TILE[1]))


def main() -> None:
    """Parse, explain, write."""
    parser = argparse.ArgumentParser(description="Make the README's picture.")
    parser.add_argument("path", type=new_file, help="JPEG or PNG to write")
    parser.add_argument("--model", default="nem-tiny", help="bundle (default nem-tiny)")
    args = parser.parse_args()
    if args.path.suffix not in (".jpg", ".png"):
        parser.error(f"{args.path}: name a .jpg or .png")
    draw = Overlay("heat", label=1)
    columns = []
    with Explainer.load(args.model) as explainer:
        for name in PHOTOS:
            picture = photo(name)
            frame = frame_from_rgb(
                picture, index=0, pts=0, time_base=Fraction(1, 30), captured_at=0.0
            )
            drawn = draw(frame, explainer(picture)).rgb()
            columns.append(np.vstack([resize(picture, TILE), resize(drawn, TILE)]))
    sheet = np.hstack(columns)[..., ::-1]
    options = [cv2.IMWRITE_JPEG_QUALITY, 88] if args.path.suffix == ".jpg" else []
    encoded = cv2.imencode(args.path.suffix, sheet, options)[1]
    args.path.write_bytes(encoded.tobytes())


if __name__ == "__main__":
    launch(main)

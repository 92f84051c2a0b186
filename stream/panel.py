"""A panel: one picture, and side by side what each method makes of it. numpy and OpenCV only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from nem.pictures import Picture, resize
from stream.label import drawable
from stream.letters import FONT

TILE_WIDTH, MIN_TILE_HEIGHT, MAX_TILE_HEIGHT = 320, 160, 480
LETTERS, LINE, MARGIN = 11, 20, 8
PAPER, INK, DIM = (250, 250, 250), (20, 20, 20), (110, 110, 110)
STRENGTH = 0.75
COLUMNS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One picture of the panel.

    Attributes:
        title: the line under it.
        notes: smaller lines under that.
        mask: float in [0, 1], (S, S), drawn over the picture; None leaves it as it is.
        picture: RGB uint8; None takes the panel's.
    """

    title: str
    notes: Sequence[str] = field(default_factory=tuple)
    mask: NDArray[np.float32] | None = None
    picture: Picture | None = None


def draw_panel(picture: Picture, tiles: Sequence[Tile], columns: int = COLUMNS) -> Picture:
    """The tiles in rows, each over its lines of text.

    Args:
        picture: RGB uint8 (H, W, 3), of any size.
        tiles: at least one.
        columns: tiles per row at most.

    Returns:
        RGB uint8.

    Raises:
        ValueError: no tiles.
    """
    if not tiles:
        raise ValueError("panel: no tiles")
    height = round(TILE_WIDTH * picture.shape[0] / picture.shape[1])
    size = (min(max(height, MIN_TILE_HEIGHT), MAX_TILE_HEIGHT), TILE_WIDTH)
    lines = max(len(tile.notes) for tile in tiles) + 1
    columns = min(columns, len(tiles))
    drawn = [_draw(picture, tile, size, lines) for tile in tiles]
    drawn += [np.full_like(drawn[0], PAPER[0])] * (-len(drawn) % columns)
    rows = [np.hstack(drawn[i : i + columns]) for i in range(0, len(drawn), columns)]
    return np.vstack(rows)


def heat(picture: Picture, mask: NDArray[np.float32]) -> Picture:
    """The picture, darkened where the mask is small and tinted where it is large."""
    level = resize(np.rint(mask * 255).astype(np.uint8), picture.shape[:2])
    tint = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)
    opacity = STRENGTH * (0.4 + 0.6 * level[..., None].astype(np.float32) / 255)
    return np.rint(picture * (1 - opacity) + tint * opacity).astype(np.uint8)


def _draw(picture: Picture, tile: Tile, size: tuple[int, int], lines: int) -> Picture:
    shown = _fitted(picture if tile.picture is None else tile.picture, size)
    if tile.mask is not None:
        shown = heat(shown, tile.mask)
    width = size[1] + 2 * MARGIN
    canvas = np.full((size[0] + 2 * MARGIN + lines * LINE, width, 3), PAPER[0], np.uint8)
    top, left = (MARGIN + (size[axis] - shown.shape[axis]) // 2 for axis in (0, 1))
    canvas[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    for number, text in enumerate((tile.title, *tile.notes)):
        base = size[0] + MARGIN + (number + 1) * LINE - 4
        _write(canvas, text, base, bold=number == 0)
    return canvas


def _fitted(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture, its proportions kept, as large as fits."""
    height, width = picture.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    return resize(picture, (max(1, round(height * scale)), max(1, round(width * scale))))


def _write(canvas: Picture, text: str, base: int, *, bold: bool) -> None:
    """One line, cut with ".." where the tile is too narrow for it."""
    text, stroke = drawable(text), 1
    scale = cv2.getFontScaleFromHeight(FONT, LETTERS if bold else LETTERS - 2, stroke)
    room = canvas.shape[1] - 2 * MARGIN
    while len(text) > 3 and cv2.getTextSize(text, FONT, scale, stroke)[0][0] > room:
        text = text.removesuffix("..")[:-1] + ".."
    colour = INK if bold else DIM
    cv2.putText(canvas, text, (MARGIN, base), FONT, scale, colour, stroke, cv2.LINE_AA)

import numpy as np
import pytest

from stream.panel import Tile, draw_panel, heat

rng = np.random.default_rng(0)
PICTURE = rng.integers(0, 256, (90, 160, 3), dtype=np.uint8)


def test_tiles_stand_in_rows():
    mask = np.zeros((16, 16), np.float32)
    tiles = [Tile(f"method {i}", ("note",), mask) for i in range(7)]
    one, all_ = draw_panel(PICTURE, tiles[:1]), draw_panel(PICTURE, tiles, columns=3)
    assert all_.dtype == np.uint8
    assert all_.shape == (3 * one.shape[0], 3 * one.shape[1], 3)


def test_a_mask_is_seen_where_it_is():
    mask = np.zeros((16, 16), np.float32)
    mask[:, 8:] = 1
    grey = np.full((80, 80, 3), 128, np.uint8)
    drawn = heat(grey, mask)
    assert drawn[:, :36].mean() < 128 < drawn[:, 44:, 0].mean()


def test_long_text_is_cut_and_stays_in_its_tile():
    short = draw_panel(PICTURE, [Tile("a"), Tile("b")])
    long = draw_panel(PICTURE, [Tile("a very long name " * 9), Tile("b")])
    half = short.shape[1] // 2
    assert long.shape == short.shape
    assert np.array_equal(short[:, half:], long[:, half:])
    assert not np.array_equal(short[:, :half], long[:, :half])


def test_no_tiles_are_refused():
    with pytest.raises(ValueError, match="no tiles"):
        draw_panel(PICTURE, [])


@pytest.mark.parametrize("shape", [(284, 160), (40, 160), (160, 32), (120, 160)])
def test_proportions_are_kept(shape):
    picture = np.full((*shape, 3), 250, np.uint8)
    y, x = np.mgrid[: shape[0], : shape[1]]
    radius = min(shape) / 3
    inside = (y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2 < radius**2
    picture[inside] = (200, 20, 20)
    drawn = draw_panel(picture, [Tile("a", mask=None)]).astype(int)
    red = np.argwhere(drawn[..., 0] - drawn[..., 1] > 100)
    height, width = np.ptp(red, axis=0) + 1
    assert abs(height - width) <= 2

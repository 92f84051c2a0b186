import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nem.errors import ArgumentError
from nem.rise_masks import RandomMasks


@pytest.mark.parametrize(("size", "grid"), [(64, 7), (70, 7), (17, 16), (9, 9), (5, 1)])
def test_a_mask_is_the_papers(size: int, grid: int) -> None:
    """Cells interpolated to (grid + 1) C pixels and cropped at an offset below C."""
    masks = RandomMasks(size, grid)
    cells, rows, columns = masks._draw(0, 20)
    cell = -(-size // grid)
    assert min(rows.min(), columns.min()) >= 0
    assert max(rows.max(), columns.max()) < cell
    side = ((grid + 1) * cell,) * 2
    whole = F.interpolate(torch.from_numpy(cells)[:, None], size=side, mode="bilinear")
    for mask, full, y, x in zip(masks.arrays(0, 20), whole, rows, columns, strict=True):
        np.testing.assert_allclose(mask[0], full[0, y : y + size, x : x + size], atol=1e-6)


def test_masks_keep_what_they_should() -> None:
    for keep in (0.3, 0.5):
        made = RandomMasks(56, keep=keep).arrays(0, 1500)
        assert made.shape == (1500, 1, 56, 56)
        assert made.dtype == np.float32
        assert made.min() >= 0
        assert made.max() <= 1
        # Each pixel's mean is p, at borders too, which a padded shift would not give.
        assert abs(made.mean() - keep) < 0.01
        assert np.abs(made.mean(0) - keep).max() < 0.06


def test_offsets_are_uniform() -> None:
    _, rows, columns = RandomMasks(64, 8)._draw(0, 4000)
    for offsets in (rows, columns):
        counts = np.bincount(offsets, minlength=8)
        assert counts.shape == (8,)
        assert np.abs(counts - 500).max() < 110
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.06


def test_mask_k_depends_on_seed_and_k_alone() -> None:
    masks = RandomMasks(32, seed=3)
    whole = masks.arrays(0, 600)
    parts = [RandomMasks(32, seed=3).arrays(a, b) for a, b in ((0, 1), (1, 255), (255, 600))]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(masks.arrays(300, 310), whole[300:310])
    assert len(np.unique(whole.reshape(600, -1), axis=0)) == 600
    assert not np.array_equal(RandomMasks(32, seed=4).arrays(0, 600), whole)


def test_tensors_are_the_arrays() -> None:
    masks = RandomMasks(40)
    array, tensor = masks.arrays(5, 25), masks.tensors(5, 25)
    np.testing.assert_allclose(tensor.numpy(), array, atol=1e-6)
    assert isinstance(masks.like(0, 2, np.zeros(1)), np.ndarray)
    assert isinstance(masks.like(0, 2, torch.zeros(1)), torch.Tensor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": 0}, "grid 0: allowed are 1 to 32"),
        ({"grid": 33}, "grid 33"),
        ({"keep": 0}, "keep 0"),
        ({"keep": 1.0}, "keep 1.0"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        RandomMasks(32, **settings)
    with pytest.raises(ArgumentError, match="start < stop"):
        RandomMasks(32).arrays(3, 3)

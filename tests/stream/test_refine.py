import numpy as np
import pytest

from engines import FakeEngine
from stream.refine import BATCH, Refiner
from tests.builders import make_frame


def test_a_frame_is_refined_until_enough_masks_were_seen():
    with FakeEngine(input_size=(16, 16)) as engine:
        refiner = Refiner(engine, (0.5, 0.5, 0.5), make_frame(48, 64), masks=BATCH + 3)
        first = refiner.step()
        assert (refiner.seen, refiner.done) == (BATCH, False)
        second = refiner.step()
        assert (refiner.seen, refiner.done) == (BATCH + 3, True)
        third = refiner.step()
    assert first.method == second.method == "relax"
    assert second.forwards == BATCH + 4
    assert (second.mask.min(), second.mask.max()) == (0, 1)
    assert second.mask.shape == second.uncertainty.shape == (1, 16, 16)
    assert not np.array_equal(first.mask, second.mask)
    assert np.array_equal(second.mask, third.mask)


def test_hidden_pixels_become_the_mean_and_the_map_is_told_raw():
    seen = []

    class Recording(FakeEngine):
        def _run(self, frames, aim, classes):
            seen.append(frames)
            return super()._run(frames, aim, classes)

    half = make_frame(rgb=np.repeat(np.uint8([0, 255]), 24 * 64 * 3).reshape(48, 64, 3))
    with Recording(input_size=(16, 16), aims=("class",)) as engine:
        shown = Refiner(engine, (0.25, 0.5, 0.75), half, masks=BATCH).step()
    masked = np.concatenate(seen[2:])  # after the frame itself, shown and compared with
    black = masked[:, :8]
    assert black.min() < 4
    assert black.max((0, 1, 2)).tolist() == pytest.approx([64, 128, 191], abs=4)
    assert shown.target is None
    low, high = shown.raw.min(), shown.raw.max()
    np.testing.assert_allclose(shown.mask, (shown.raw - low) / (high - low), atol=1e-6)

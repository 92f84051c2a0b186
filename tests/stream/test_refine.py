import numpy as np

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

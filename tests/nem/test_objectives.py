from typing import Any

import pytest
import torch

from nem.config import Score, TrainConfig
from nem.explanation import METHOD_OF, Aim
from nem.objectives import Seen, Values, aim_terms
from tests.nem.toys import SIZE, batch, tiny_backbone

TARGET = torch.tensor([3, 0, 1, 4])
ABSENT = torch.tensor([False, True, False, True])


def masks() -> torch.Tensor:
    """Random ones, each of another area."""
    drawn = torch.rand(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return drawn * torch.tensor([0.3, 0.9, 0.6, 0.45]).view(4, 1, 1, 1)


@pytest.mark.parametrize("score", ["softmax", "logits"])
@pytest.mark.parametrize("aim", ["embedding", "class", "target"])
def test_the_values_of_a_batch_are_those_of_its_pictures(aim: Aim, score: Score) -> None:
    backbone, x, mask = tiny_backbone(), batch(), masks()
    config = TrainConfig(data=("-",), out="-", methods=(METHOD_OF[aim],), score=score)

    def judged(pick: Any) -> Values:
        generator = torch.Generator().manual_seed(0)
        asked = (TARGET[pick], ABSENT[pick])
        with torch.no_grad():
            full = backbone(x[pick])
            term = aim_terms(x[pick], {aim: mask[pick]}, full, config, generator, 0.05, asked, {})[
                aim
            ]
            seen = [backbone(pictures) for pictures in term.pictures]
        return term.judge([Seen(one.embedding, one.logits) for one in seen])

    together, apart = judged(slice(None)), [judged(slice(i, i + 1)) for i in range(4)]
    assert "loss" in together
    for name, value in together.items():
        assert value.shape == (4,), name
        single = torch.cat([one[name] for one in apart])
        torch.testing.assert_close(value, single, rtol=1e-4, atol=1e-5, equal_nan=True, msg=name)
        there = value[~value.isnan()]
        assert there.max() - there.min() > 1e-4, name
    if aim == "target":
        assert torch.equal(together["drop"].isnan(), ABSENT)
        assert torch.equal(together["absent_area"].isnan(), ~ABSENT)

"""What a training tells."""

from pathlib import Path

import pytest
import torch

from nem.config import CHECKPOINT, Fill, TrainConfig
from nem.data import collect
from nem.learner import Learner
from nem.watch import epoch_line, explain_pictures, gauge_pictures
from tests.nem.toys import shapes, tiny_nem, write_pictures


def test_the_line_of_an_epoch_with_one_head() -> None:
    means = {"loss": -0.4314, "kept": 0.8, "binarity": 0.3, "area": 0.35}
    assert epoch_line(1, 3, means) == "epoch 1/3: loss -0.431 | kept 0.80 area 0.35"
    found = {"gauge_kept": 0.9, "gauge_control": 0.777, "gauge_complement": 0.5, "gauge_area": 0.2}
    assert epoch_line(2, 3, means | found) == (
        "epoch 2/3: loss -0.431 | kept 0.90 random 0.78 area 0.20"
    )
    means = {"loss": 0.1, "drop": 0.6, "area": 0.2, "absent_area": 0.01}
    assert epoch_line(1, 1, means).endswith("| drop 0.60 area 0.20 absent 0.01")


def test_the_line_of_an_epoch_names_each_of_several_heads() -> None:
    values = {
        "loss": 0.5, "class_loss": 0.2, "class_drop": 0.55, "class_area": 0.21,
        "embedding_loss": 0.1, "embedding_kept": 0.8, "embedding_area": 0.3,
        "target_loss": 0.2, "target_drop": 0.6, "target_area": 0.2, "target_absent_area": 0.012,
        "ranking_loss": -0.4, "ranking_kept": 0.4, "ranking_rest": 0.1,
        "embedding_gauge_kept": 0.914, "embedding_gauge_control": 0.78,
        "embedding_gauge_area": 0.24,
    }  # fmt: skip
    assert epoch_line(2, 10, values) == (
        "epoch 2/10: loss 0.500 | class drop 0.55 area 0.21 | "
        "embedding kept 0.91 random 0.78 area 0.24 | "
        "target drop 0.60 area 0.20 absent 0.01 | ranking kept 0.40 rest 0.10"
    )


@pytest.mark.parametrize("fill", ["mean", "noise"])
def test_gauging_repeats_and_leaves_chance_and_mode_alone(fill: Fill) -> None:
    model, pictures = tiny_nem().train(), shapes(5, 0)[0]
    modes = [module.training for module in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    chance = torch.random.get_rng_state()
    masks = explain_pictures(model, pictures)["embedding"]
    one, two = (gauge_pictures(model, pictures, masks, fill, batch=2) for _ in "ab")
    assert one == two
    assert one["area"] == pytest.approx(masks.mean())
    assert one["kept"] != one["control"]
    assert torch.equal(torch.random.get_rng_state(), chance)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_a_broken_loss_tells_whether_there_is_a_checkpoint(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", shapes(2, 0)[0])
    config = TrainConfig(data=(pictures,), out=tmp_path / "out")
    learner = Learner(tiny_nem(), collect((pictures,), 64), config, {})
    values, index = torch.tensor([0.0, float("nan")]), torch.tensor([0, 1])
    told = learner._what_broke(float("nan"), values, index, 0)
    assert "001.png); there is no checkpoint yet. Look" in told
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / CHECKPOINT).touch()
    told = learner._what_broke(float("nan"), values, index, 0)
    assert f"001.png); the last good checkpoint stays in {tmp_path / 'out'}. Look" in told

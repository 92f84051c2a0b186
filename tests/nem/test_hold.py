"""Heads that keep their maps while others learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nem.bundle_io import state_sha256
from nem.config import TrainConfig
from nem.errors import TrainError
from nem.learner import Learner
from nem.model import NEM
from nem.train import fit
from tests.nem.toys import batch, shapes, tiny_backbone, write_pictures

METHODS = ("nem-u", "ra-nem")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), shapes(20, 0)[0])


def start(methods: tuple[str, ...] = METHODS) -> dict[str, Tensor]:
    """Weights of a decoder to begin with."""
    aims = TrainConfig(data=("-",), out=Path("-"), methods=methods).aims
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return NEM(tiny_backbone(), "lite", aims, width=8).decoder.state_dict()


def train(pictures: Path, out: Path, begin_with: dict[str, Tensor] | None, **changes: Any) -> NEM:
    settings: dict[str, Any] = {
        "methods": METHODS, "ks": 1, "batch_size": 5, "accumulate": 1, "epochs": 15, "lr": 1.0,
        "decoder_kwargs": {"width": 8}, "accelerator": "cpu", "pictures": 5,
    }  # fmt: skip
    config = TrainConfig(data=(pictures,), out=out, **{**settings, **changes})
    return fit(config, backbone=tiny_backbone(), begin_with=begin_with, progress=False)


@torch.no_grad()
def maps(model: NEM) -> dict[str, Tensor]:
    return {str(aim): drawn for aim, drawn in model(batch()).maps.items()}


def test_a_held_head_keeps_its_maps_while_the_other_learns(pictures: Path, tmp_path: Path) -> None:
    weights = start()
    # Batch statistics of an untrained decoder are not yet those of the data.
    settled = train(pictures, tmp_path / "settled", weights, epochs=5)
    weights, before = settled.decoder.state_dict(), maps(settled)
    held = maps(train(pictures, tmp_path / "held", weights, hold=("nem-u",)))
    free = maps(train(pictures, tmp_path / "free", weights))
    moved = {
        name: float((found["embedding"] - before["embedding"]).abs().mean())
        for name, found in (("held", held), ("free", free))
    }
    assert moved["held"] < 0.5 * moved["free"]
    assert (held["ranking"] - before["ranking"]).abs().mean() > 0.1
    line = json.loads((tmp_path / "held" / "log.jsonl").read_text().splitlines()[-1])
    assert line["embedding_loss"] < 0.1
    assert "embedding_area" not in line  # of its own loss


def test_a_resumed_training_holds_to_the_same_maps(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, settings = start(), {"hold": ("nem-u",), "epochs": 2}
    whole = train(pictures, tmp_path / "whole", weights, **settings)

    def stop(self: Learner, *args: Any, step: Any = Learner.training_step) -> Any:
        if self.current_epoch == 1:
            raise ZeroDivisionError("power cut")
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", stop)
        with pytest.raises(ZeroDivisionError):
            train(pictures, tmp_path / "cut", weights, **settings)
    resumed = train(pictures, tmp_path / "cut", weights, resume=True, **settings)
    assert state_sha256(resumed.state_dict()) == state_sha256(whole.state_dict())


@pytest.mark.parametrize(
    ("hold", "begin_with", "says"),
    [
        (("rise",), start(), "hold rise: allowed are those of methods"),
        (METHODS, start(), "leaves no head to train"),
        (("nem-u",), None, "needs a whole decoder to begin with"),
        (("nem-u",), start(("nem-u",)), r"5 of its weights are missing or .*blend"),
    ],
    ids=["unknown", "all", "nothing", "part"],
)
def test_what_can_not_be_held_is_refused(
    hold: tuple[str, ...], begin_with: Any, says: str, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match=says):
        train(pictures, tmp_path / "out", begin_with, hold=hold)
    assert not (tmp_path / "out").exists()

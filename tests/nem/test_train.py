import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import nem.watch
from nem.bundle_io import state_sha256
from nem.config import TrainConfig
from nem.errors import DataError, ModelError, TrainError
from nem.learner import Learner
from nem.model import NEM
from nem.train import fit
from tests.nem.toys import shapes, tiny_backbone, write_pictures, write_tiny_bundle


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), shapes(21, 0)[0])


def config(pictures: Path, out: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "data": (pictures,), "out": out, "batch_size": 5, "accumulate": 2, "epochs": 2,
        "decoder_kwargs": {"width": 8}, "accelerator": "cpu", "early_step": 1, "pictures": 5,
    }  # fmt: skip
    return TrainConfig(**values | changes)


def train(pictures: Path, out: Path, **changes: Any) -> NEM:
    return fit(config(pictures, out, **changes), backbone=tiny_backbone(), progress=False)


def test_training_moves_the_decoder_and_not_the_backbone(pictures: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    outside = torch.random.get_rng_state()
    model = train(pictures, tmp_path / "out")
    assert torch.equal(torch.random.get_rng_state(), outside)
    assert state_sha256(model.backbone.state_dict()) == state_sha256(tiny_backbone().state_dict())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = NEM(tiny_backbone(), "lite", width=8)
    for (name, after), before in zip(
        model.decoder.named_parameters(), fresh.decoder.parameters(), strict=True
    ):
        assert torch.isfinite(after).all()
        assert not torch.equal(after, before), name
    assert not any(m.training for m in model.modules())
    assert all(p.is_contiguous() for p in model.parameters())


def test_out_holds_log_pictures_and_one_checkpoint(pictures: Path, tmp_path: Path) -> None:
    train(pictures, tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "last.safetensors", "log.jsonl", "masks-early.png", "masks-epoch-001.png",
        "masks-epoch-002.png",
    ]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # 21 pictures are 4 whole batches, 2 optimiser steps.
    assert [(line["epoch"], line["steps"]) for line in lines] == [(1, 2), (2, 4)]
    for line in lines:
        assert 0 < line["area"] < 1
        assert -1 <= line["kept"] <= 1
    sheet = cv2.imread(str(tmp_path / "masks-epoch-002.png"))
    assert sheet.shape == (3 * 64, 5 * 64, 3)
    first = cv2.imread(str(pictures / "000.png"))
    np.testing.assert_array_equal(sheet[:64, :64], first)


def test_the_same_seed_gives_the_same_model(pictures: Path, tmp_path: Path) -> None:
    options = {"fill": "noise", "flip": True}
    one, two = (train(pictures, tmp_path / name, **options) for name in "ab")
    other = train(pictures, tmp_path / "c", seed=1, **options)
    assert state_sha256(one.state_dict()) == state_sha256(two.state_dict())
    assert state_sha256(one.state_dict()) != state_sha256(other.state_dict())


def test_a_resumed_training_equals_one_in_one_go(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 3, "fill": "noise", "flip": True}
    whole = train(pictures, tmp_path / "whole", **options)

    def stop(self: Learner, batch: Any, batch_idx: int, step: Any = Learner.training_step) -> Any:
        if self.current_epoch == 1 and batch_idx == 1:
            raise ZeroDivisionError("power cut")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", stop)
        with pytest.raises(ZeroDivisionError):
            train(pictures, tmp_path / "cut", **options)
    with pytest.raises(TrainError, match="holds a training; resume it"):
        train(pictures, tmp_path / "cut", **options)
    resumed = train(pictures, tmp_path / "cut", resume=True, **options)
    assert state_sha256(resumed.state_dict()) == state_sha256(whole.state_dict())

    def tail(name: str) -> list[dict[str, Any]]:
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in lines]

    assert tail("cut") == tail("whole")
    # A finished one has nothing left to do and gives the same model.
    again = train(pictures, tmp_path / "cut", resume=True, **options)
    assert state_sha256(again.state_dict()) == state_sha256(whole.state_dict())


def test_file_names_may_hold_bytes_that_are_no_text(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"pictures\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes text only")
    for path in pictures.iterdir():
        shutil.copy(path, folder / os.fsdecode(b"\xff" + os.fsencode(path.name)))
    train(folder, tmp_path / "out", max_steps=1)


def test_another_recipe_backbone_or_data_is_not_continued(pictures: Path, tmp_path: Path) -> None:
    train(pictures, tmp_path / "out", epochs=1)
    more = write_pictures(tmp_path / "more", shapes(6, 1)[0])
    for data, changes, reason in (
        (pictures, {"epochs": 2}, "epochs differ"),
        (pictures, {"epochs": 1, "loss": "code", "seed": 4}, "loss, seed differ"),
        (more, {"epochs": 1}, r"pictures_seen: '21 of .*, '6 of "),
        (write_pictures(tmp_path / "as many", shapes(21, 1)[0]), {"epochs": 1}, "seen differ"),
    ):
        with pytest.raises(TrainError, match=reason):
            train(data, tmp_path / "out", resume=True, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning.pytorch.Trainer.world_size", property(lambda _: 2))
        with pytest.raises(TrainError, match=r"processes differ \(processes: 1 then, 2 now\)"):
            train(pictures, tmp_path / "out", resume=True, epochs=1)
    with pytest.raises(TrainError, match="backbone differ"):
        fit(
            config(pictures, tmp_path / "out", epochs=1, resume=True),
            backbone=tiny_backbone("convnext"),
            progress=False,
        )


def test_a_damaged_checkpoint_is_refused(pictures: Path, tmp_path: Path) -> None:
    train(pictures, tmp_path, epochs=1)
    path = tmp_path / nem.watch.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TrainError, match="can't be read"):
        train(pictures, tmp_path, epochs=1, resume=True)


def test_a_loss_that_is_not_finite_names_the_batch_and_keeps_the_checkpoint(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Learner.forward

    def spoilt(self: Learner, images: torch.Tensor, generator: torch.Generator) -> Any:
        values = forward(self, images, generator)
        if self.current_epoch == 1:
            values["loss"].data[2] = float("nan")
        return values

    monkeypatch.setattr(Learner, "forward", spoilt)
    with pytest.raises(TrainError, match=r"loss is nan in epoch 2, batch 1 \(.*\d\d\d.png\)"):
        train(pictures, tmp_path)
    monkeypatch.undo()
    assert torch.isfinite(train(pictures, tmp_path, resume=True).decoder.head.weight).all()


def test_broken_weights_do_not_replace_a_good_checkpoint(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(self: Learner, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (self.current_epoch, batch_idx) == (1, 3):  # the very last: no loss tells of it
            self.model.decoder.head.bias.data[:] = float("inf")

    monkeypatch.setattr(Learner, "on_train_batch_end", spoil)
    with pytest.raises(TrainError, match=r"weights are not finite after epoch 2 \(first: .*bias"):
        train(pictures, tmp_path)
    line = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(text)["epoch"] for text in line] == [1]
    monkeypatch.undo()
    train(pictures, tmp_path, resume=True)


def test_ctrl_c_is_a_keyboard_interrupt_and_leaves_the_signal_alone(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Learner, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(pictures, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"epochs": 0.5}, 1),
        ({"epochs": 1.5}, 3),
        ({"epochs": 5, "max_steps": 3}, 3),
        ({"epochs": 1, "accumulate": 1}, 4),
        ({"epochs": 1, "accumulate": 100}, 1),
        ({"epochs": 2, "batch_size": 50}, 2),
    ],
)
def test_length(pictures: Path, tmp_path: Path, changes: dict[str, Any], steps: int) -> None:
    train(pictures, tmp_path, **changes)
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["steps"] == steps


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder": "paper", "decoder_kwargs": {"image_skip": True}},
        {"loss": "code", "cosine": False},
        {"precision": "bf16"},
        {"workers": 1},
    ],
    ids=str,
)
def test_options(pictures: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    model = train(pictures, tmp_path, epochs=1, **changes)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_a_training_can_begin_with_a_decoder_of_another_shape(
    pictures: Path, tmp_path: Path
) -> None:
    before = {k: v + 1 for k, v in NEM(tiny_backbone(), width=8).decoder.state_dict().items()}
    before["head.weight"] = torch.ones(1, 99, 1, 1)
    seen: dict[str, torch.Tensor] = {}

    def keep(self: Learner, *args: Any, step: Any = Learner.training_step) -> Any:
        if not seen:
            seen.update({k: v.clone() for k, v in self.model.decoder.state_dict().items()})
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "training_step", keep)
        wanted = config(pictures, tmp_path / "out", max_steps=1)
        fit(wanted, backbone=tiny_backbone(), begin_with=before, progress=False)
    assert torch.equal(seen["context.weight"], before["context.weight"])
    assert seen["head.weight"].shape != before["head.weight"].shape
    with pytest.raises(TrainError, match="begun_with differ"):
        train(pictures, tmp_path / "out", max_steps=1, resume=True)


def test_models_come_from_timm_or_a_bundle(pictures: Path, tmp_path: Path) -> None:
    named = config(
        pictures, tmp_path / "a", epochs=1, model="resnet10t", weights="none", input_size=32,
        model_kwargs={"channels": (8, 8, 8, 8), "num_classes": 3},
    )  # fmt: skip
    model = fit(named, progress=False)
    assert model.backbone.input_size == 32
    bundle = write_tiny_bundle(tmp_path / "tiny")
    again = fit(config(pictures, tmp_path / "b", epochs=1, model=bundle.path), progress=False)
    assert state_sha256(again.backbone.state_dict()) == bundle.manifest.backbone.sha256


def test_what_can_not_be_trained_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="name one, or give fit a backbone"):
        fit(config(pictures, tmp_path), progress=False)
    with pytest.raises(TrainError, match="not both"):
        train(pictures, tmp_path, model="resnet50")
    with pytest.raises(ModelError, match="no option image_skip"):
        train(pictures, tmp_path, decoder_kwargs={"image_skip": True})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no usable picture"):
        train(empty, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_skipped_files_are_reported(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    both = config(pictures, tmp_path / "out", epochs=0.5, data=(pictures, bad))
    fit(both, backbone=tiny_backbone(), progress=False)
    assert f"{bad}: not a readable image" in caplog.text


def test_progress_goes_to_stderr_only(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(config(pictures, tmp_path), backbone=tiny_backbone())
    out, err = capsys.readouterr()
    assert out == ""
    assert "loss" in err

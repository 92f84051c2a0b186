"""What the machine may do to a training: no place to write, processes that die."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nem.checkpoint import SafetensorsIO, save_tree
from nem.config import TrainConfig
from nem.data import Collection
from nem.errors import DataError, TrainError, WriteError
from nem.train import Bar, fit
from tests.nem.toys import shapes, tiny_backbone, write_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), shapes(8, 0)[0])


def train(pictures: Path, out: Path, **changes: Any) -> None:
    config = TrainConfig(
        data=(pictures,), out=out, batch_size=4, accumulate=1, accelerator="cpu",
        decoder_kwargs={"width": 8}, **{"max_steps": 1} | changes,
    )  # fmt: skip
    fit(config, backbone=tiny_backbone(), progress=False)


def test_a_folder_that_can_not_be_written_is_told_before_pictures_are_read(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delattr("nem.train.collect")
    with pytest.raises(TrainError, match=r"out .*run: .*file can't be written to; give"):
        train(pictures, tmp_path / "file" / "run")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(TrainError, match=r"can't be written to; give another"):
        train(pictures, tmp_path / "run")


def test_what_is_missing_is_told_before_a_model_is_fetched(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("nem.train.create_backbone")
    (tmp_path / "file").touch()
    for data, out, told in (
        (tmp_path / "nowhere", tmp_path / "run", r"nowhere: no such file or folder"),
        (pictures, tmp_path / "file" / "run", r"file can't be written to"),
    ):
        with pytest.raises((DataError, TrainError), match=told):
            fit(TrainConfig(model="resnet10t", data=(data,), out=out), progress=False)


def test_a_single_picture_is_too_few_and_leaves_no_folder(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "one", shapes(1, 0)[0])
    with pytest.raises(DataError, match=r"^1 usable picture.*each process needs 2 .*give more$"):
        train(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_log_that_can_not_be_written_is_told_in_a_line(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(WriteError, match=r"^out .*can't be written: .*log\.jsonl'$"):
        train(pictures, tmp_path)


@pytest.mark.parametrize("saved", [True, False], ids=["after", "before"])
def test_the_log_is_whole_where_the_process_ended_at_a_checkpoint(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    def save(self: SafetensorsIO, tree: dict[str, Any], path: Any, **_: Any) -> None:
        if saved or tree["epoch"] == 0:
            save_tree(tree, Path(path))
        if tree["epoch"] == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SafetensorsIO, "save_checkpoint", save)
        with pytest.raises(KeyboardInterrupt):
            train(pictures, tmp_path, max_steps=6)
    train(pictures, tmp_path, max_steps=6, resume=True)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["steps"] for line in lines] == [2, 4, 6]


def test_the_bar_counts_epochs_from_1() -> None:
    bar = Bar()
    bar._trainer = SimpleNamespace(max_epochs=2)  # type: ignore[assignment]
    assert bar._get_train_description(0) == "epoch 1/2"


def fail(error: Exception) -> Any:
    """A loader that can't be started, or whose process has died."""

    def start(*_: Any) -> None:
        raise error

    return start


def test_a_process_that_loads_data_fails_in_one_line(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, own = os.getpid(), Collection.pixels

    def pixels(self: Collection, index: int) -> np.ndarray:
        if os.getpid() != here:
            raise DataError("a.png: was readable, is no longer")
        return own(self, index)

    monkeypatch.setattr(Collection, "pixels", pixels)
    with pytest.raises(DataError, match=r"^a\.png: was readable, is no longer$"):
        train(pictures, tmp_path / "gone", workers=1)

    loader = "torch.utils.data.dataloader._MultiProcessingDataLoaderIter"
    died = RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible")
    for number, (error, reason) in enumerate([
        (died, "DataLoader worker .* Bus error"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ]):  # fmt: skip
        monkeypatch.setattr(loader, fail(error))
        match = f"^workers 1: the processes that load data fail .*{reason}.*/dev/shm"
        with pytest.raises(TrainError, match=match):
            train(pictures, tmp_path / str(number), workers=1)

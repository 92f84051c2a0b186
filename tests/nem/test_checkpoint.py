import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from nem.checkpoint import SafetensorsIO, load_tree, save_tree
from nem.errors import TrainError, WriteError

TREE = {
    "step": 3,
    "rate": 0.1,
    "none": None,
    "on": True,
    "pair": (1, [2.5, "x"]),
    "state": {0: {"m": torch.arange(6.0).view(2, 3)}, 7: {"m": torch.tensor(4)}},
    "bf16": torch.ones(3, dtype=torch.bfloat16),
    "empty": {},
    "turned": torch.arange(6).view(2, 3).T,
}


def test_a_tree_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "c.safetensors"
    save_tree(TREE, path)
    again = load_tree(path)
    assert again.keys() == TREE.keys()
    for key in ("step", "rate", "none", "on", "pair", "empty"):
        assert again[key] == TREE[key]
        assert type(again[key]) is type(TREE[key])
    assert torch.equal(again["state"][0]["m"], TREE["state"][0]["m"])
    assert again["state"][7]["m"].shape == ()
    assert again["bf16"].dtype == torch.bfloat16
    assert torch.equal(again["turned"], TREE["turned"])


def test_nothing_stays_of_a_process_that_was_killed_while_it_saved(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; import nem.checkpoint as c\n"
        "def save(_, path, **__):\n"
        "    path.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "c.save_file = save; c.save_tree({'a': 1}, Path(sys.argv[1]))"
    )
    path = tmp_path / "c"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    save_tree({"a": 2}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_tensors_that_share_memory_are_fine(tmp_path: Path) -> None:
    one = torch.arange(4.0)
    save_tree({"a": one, "b": one[:2]}, tmp_path / "c")
    assert torch.equal(load_tree(tmp_path / "c")["b"], one[:2])


@pytest.mark.parametrize("value", [object(), {1.5: 0}, {"deep": [torch.nn.Linear(1, 1)]}])
def test_what_needs_pickle_is_refused(tmp_path: Path, value: object) -> None:
    save_tree({"a": 1}, tmp_path / "c")
    with pytest.raises(TrainError, match="checkpoint: "):
        save_tree({"a": value}, tmp_path / "c")
    assert load_tree(tmp_path / "c") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "pickle")
    save_file({"a": torch.zeros(1)}, tmp_path / "weights")
    (tmp_path / "folder").mkdir()
    for name, reason in (
        ("pickle", "can't be read"),
        ("missing", "can't be read: No such file"),
        ("folder", "can't be read: Is a directory"),
        ("weights", "not of a training"),
    ):
        with pytest.raises(TrainError, match=reason):
            load_tree(tmp_path / name)


@pytest.mark.parametrize("text", ["", "3", "{}", '{"dict": [[1]]}', '{"tensor": "b"}'])
def test_a_damaged_tree_is_refused(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "c", metadata={"tree": text})
    with pytest.raises(TrainError, match="damaged"):
        load_tree(tmp_path / "c")


def test_the_plugin_saves_loads_and_removes(tmp_path: Path) -> None:
    io, path = SafetensorsIO(), tmp_path / "c"
    io.save_checkpoint({"a": torch.ones(2)}, path)
    assert torch.equal(io.load_checkpoint(str(path))["a"], torch.ones(2))
    io.remove_checkpoint(path)
    io.remove_checkpoint(path)
    assert not path.exists()


def test_a_disk_that_does_not_take_it_is_no_fault_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tree({"a": 1}, tmp_path / "c")

    def stopped(error: BaseException) -> Callable[..., None]:
        def save(_: object, path: Path, __: object) -> None:
            path.write_bytes(b"half")
            raise error

        return save

    for error, told in (
        (SafetensorError("No space left on device"), WriteError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        monkeypatch.setattr("nem.bundle_io.save_file", stopped(error))
        with pytest.raises(told):
            save_tree({"a": 2}, tmp_path / "c")
        assert [p.name for p in tmp_path.iterdir()] == ["c"]
        assert load_tree(tmp_path / "c") == {"a": 1}

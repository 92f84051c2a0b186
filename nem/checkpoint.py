"""Training checkpoints without pickle: one safetensors file, its structure as JSON inside.

Lightning hands over a tree of dicts, lists, numbers, strings and tensors. Tensors become the
tensors of the file, the rest becomes its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nem.bundle_io import save_tensors
from nem.errors import TrainError, WriteError, first_line, reason_of

_TREE = "tree"


def save_tree(tree: Mapping[str, Any], path: Path) -> None:
    """Write a tree; a file of that name is replaced only once the new one is whole.

    Raises:
        TrainError: a value of another type.
        WriteError: the disk refuses.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(tree, "", tensors))
    partial = path.with_name(f"{path.name}.partial")  # of a killed process it is written over
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, partial, {_TREE: text})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise WriteError(f"checkpoint {path}: can't be written: {error}") from None
    finally:  # Ctrl-C comes here too
        partial.unlink(missing_ok=True)


def load_tree(path: Path) -> dict[str, Any]:
    """Read what `save_tree` wrote, to the CPU.

    Raises:
        TrainError: missing, forbidden, damaged, or another kind of file.
    """
    try:
        path.open("rb").close()  # safetensors takes whatever it can't open for missing
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_TREE)
            if text is None:
                raise TrainError(f"checkpoint {path}: a safetensors file, but not of a training")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tree: dict[str, Any] = dict(_decode(json.loads(text), tensors))
    except (OSError, SafetensorError) as error:
        raise TrainError(f"checkpoint {path}: can't be read: {reason_of(error)}") from None
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise TrainError(f"checkpoint {path}: damaged: {first_line(error)}") from None
    return tree


class SafetensorsIO(CheckpointIO):
    """Makes Lightning keep its checkpoints in our format."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; see `save_tree`."""
        save_tree(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU; Lightning moves it where it belongs."""
        return load_tree(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def _encode(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """JSON of a tree. Containers and tensors are tagged; plain values stand for themselves."""
    if isinstance(value, Tensor):
        tensors[where] = value.detach().cpu().contiguous().clone()
        return {"tensor": where}
    if isinstance(value, Mapping):
        pairs = [[k, _encode(v, f"{where}/{k}", tensors)] for k, v in value.items()]
        if any(not isinstance(k, str | int) or isinstance(k, bool) for k, _ in pairs):
            raise TrainError(f"checkpoint: a key under {where or '/'} is neither text nor number")
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        items = [_encode(v, f"{where}/{i}", tensors) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TrainError(f"checkpoint: {where} is a {type(value).__name__}, which can't be stored")


def _decode(node: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in value}
    items = [_decode(item, tensors) for item in value]
    return tuple(items) if kind == "tuple" else items

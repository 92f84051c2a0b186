"""Writing and loading bundles: the torch side of `nem.bundle`.

Weights of convolutions and linear layers are stored in 16 bits, which halves a bundle. So that
weights and graph agree exactly, round first (`round_weights_`), then export, then write.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nem.backbone import Backbone, create_backbone
from nem.bundle import Bundle, open_bundle
from nem.errors import BundleError, ModelError, WriteError
from nem.hashes import sha256_of
from nem.manifest import CARD, GRAPH, MANIFEST, PARTS, WEIGHTS, BackboneInfo, DecoderInfo, Manifest
from nem.model import NEM


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def installed_versions() -> dict[str, str]:
    """Versions of the packages a training depends on, for the manifest's `training`."""
    names = ("nem-stream", "torch", "timm", "lightning", "prodigyopt", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def save_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """As safetensors does, but the file is as open to others as the umask says, not to none."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata)
    path.chmod(mode)


@torch.no_grad()
def round_weights_(model: nn.Module) -> nn.Module:
    """Round convolution and linear weights to 16-bit floats, in place; returns the model.

    Biases and BatchNorm stay as they are.

    Raises:
        ModelError: a weight is not finite, or beyond the range of 16 bits.
    """
    for name, weight in _big_weights(model).items():
        rounded = weight.half()
        if not torch.isfinite(rounded).all():
            raise ModelError(f"weight {name} does not fit 16-bit floats: not finite or > 65504")
        weight.copy_(rounded)
    return model


def write_bundle(
    folder: Path,
    model: NEM,
    graph: Path,
    *,
    name: str,
    training: Mapping[str, Any],
    quality: Mapping[str, float],
    card: str,
    fill: Literal["mean", "noise"] = "mean",
    classes: tuple[str, ...] | None = None,
    source: str | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle, whole or not at all: made beside `folder`, checked, then renamed.

    Args:
        folder: the bundle's folder.
        model: rounded by `round_weights_`.
        graph: the ONNX file exported from that very model; copied.
        name: the bundle's name.
        training: command, data, seed, versions.
        quality: measured figures.
        card: the model card, Markdown.
        fill: what replaced hidden pixels in training.
        classes: class names; default the backbone's.
        source: where the backbone's weights came from; default the backbone's.
        overwrite: replace an existing folder.

    Raises:
        BundleError: the folder exists, the model was not rounded, or a value is not allowed.
        WriteError: the disk refuses.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise BundleError(f"bundle {folder}: exists already; choose another folder or overwrite")
    backbone = model.backbone
    names = backbone.classes if classes is None else tuple(classes)
    if names and len(names) != backbone.num_classes:
        raise BundleError(f"bundle {name}: {len(names)} names for {backbone.num_classes} logits")
    state = _stored_state(model)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        temporary.mkdir(parents=True)
        save_tensors(state, temporary / WEIGHTS)
        shutil.copyfile(graph, temporary / GRAPH)
        (temporary / CARD).write_text(card, encoding="utf-8")
        manifest = Manifest(
            name=name,
            heads=model.aims,
            fill=fill,
            input_size=backbone.input_size,
            mean=backbone.mean,
            std=backbone.std,
            classes=names,
            backbone=BackboneInfo(
                name=backbone.name,
                kwargs=_plain(backbone.kwargs),
                source=source or backbone.source,
                sha256=state_sha256(backbone.state_dict()),
            ),
            decoder=DecoderInfo.model_validate(
                {"kind": model.decoder_kind, "kwargs": _plain(model.decoder_kwargs)}
            ),
            files={file: sha256_of(temporary / file) for file in (WEIGHTS, GRAPH)},
            training=_plain(training),
            quality=dict(quality),
        )
        (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
        open_bundle(temporary)
        _replace(temporary, folder)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"bundle {name}: {where}: {first['msg']}") from None
    except (OSError, SafetensorError) as error:
        raise WriteError(f"bundle {folder}: can't be written: {error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_bundle(folder)


def load_model(bundle: Bundle | Path | str) -> NEM:
    """The model of a bundle, open or as `open_bundle` takes it: float32, eval mode, CPU.

    Raises:
        BundleError: it can't be opened, the architecture can't be built here, or tensors don't
            fit it.
    """
    bundle = open_bundle(bundle)
    manifest = bundle.manifest
    backbone_state, decoder = _parts(bundle, *PARTS)
    backbone = _backbone(bundle, backbone_state)
    try:
        model = NEM(backbone, manifest.decoder.kind, manifest.heads, **manifest.decoder.kwargs)
        model.decoder.load_state_dict(decoder)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _cannot_build(bundle, error) from None
    return model.eval()


def load_backbone(bundle: Bundle | Path | str) -> Backbone:
    """The frozen model of such a bundle alone, whatever its decoder is: float32, eval mode, CPU.

    Raises:
        BundleError: see `load_model`.
    """
    bundle = open_bundle(bundle)
    return _backbone(bundle, *_parts(bundle, PARTS[0]))


def _backbone(bundle: Bundle, state: Mapping[str, Tensor]) -> Backbone:
    manifest = bundle.manifest
    info = manifest.backbone
    kwargs: dict[str, Any] = dict(info.kwargs)
    try:
        backbone = create_backbone(
            info.name,
            input_size=manifest.input_size,
            mean=manifest.mean,
            std=manifest.std,
            classes=manifest.classes,
            **kwargs,
        )
        backbone.source = info.source
        backbone.load_state_dict(state)
    except (ModelError, RuntimeError, TypeError) as error:
        raise _cannot_build(bundle, error) from None
    return backbone


def decoder_state(bundle: Bundle) -> dict[str, Tensor]:
    """The weights of a bundle's decoder by name.

    Raises:
        BundleError: the file can't be read.
    """
    [state] = _parts(bundle, PARTS[1])
    return state


def _parts(bundle: Bundle, *prefixes: str) -> list[dict[str, Tensor]]:
    """The tensors of some parts, and of these alone: the file holds all."""
    try:
        with safe_open(bundle.weights_path, framework="pt") as file:
            names = list(file.keys())
            if foreign := [n for n in names if not n.startswith(PARTS)]:
                raise _cannot_build(bundle, ValueError(f"tensor {foreign[0]} belongs to no part"))
            parts = [
                {n.removeprefix(p): file.get_tensor(n).clone() for n in names if n.startswith(p)}
                for p in prefixes
            ]
        bundle.check(WEIGHTS)  # after they were read: the folder may be replaced meanwhile
    except (SafetensorError, OSError) as error:
        raise _cannot_build(bundle, error) from None
    return parts


def _cannot_build(bundle: Bundle, error: Exception) -> BundleError:
    reason = " ".join(str(error).split())[:240]
    return BundleError(f"bundle {bundle.path}: can't build its model: {reason}")


def _big_weights(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def _stored_state(model: NEM) -> dict[str, Tensor]:
    """The state as it is stored: 16 bits where that loses nothing by `round_weights_`."""
    big = _big_weights(model)
    state = {}
    for name, tensor in model.state_dict().items():
        kept = tensor.detach().cpu().contiguous().clone()
        if name in big:
            if not torch.equal(kept.half().float(), kept):
                raise BundleError(
                    f"weight {name} is not rounded; call round_weights_(model) before exporting "
                    "the graph, then write the bundle"
                )
            kept = kept.half()
        state[name] = kept
    return state


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON reads them back: tuples become lists, bytes that are no text "?"."""
    try:
        text = json.dumps(dict(values), allow_nan=False, ensure_ascii=False)
        plain: dict[str, Any] = json.loads(text.encode(errors="replace"))
    except (TypeError, ValueError) as error:
        raise BundleError(f"can't be written as JSON: {error}") from None
    return plain


def _replace(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`; the old one stays until the new one is there."""
    if not folder.exists():
        new.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)

"""All methods behind one door: `explain(method, model, image, target)`.

Trained heads and slow references give the same `Explanation`, so they can be compared. A method's
module, and the library it may need, is imported when the method is asked for.
"""

from __future__ import annotations

import importlib
import inspect
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nem.backbone import Backbone
from nem.budget import pictures_per_run
from nem.classes import Target, find_classes
from nem.data import normalise
from nem.errors import ArgumentError, MethodError, ModelError
from nem.explained import library
from nem.explanation import AIM_OF, Explanation, class_names
from nem.method import Map
from nem.method_table import (
    METHODS,
    TRAINED,
    Method,
    check_method,
    method_names,
    summary,
    takes_target,
)
from nem.model import NEM
from nem.pictures import no_pictures, squash
from nem.quiet import quiet
from nem.ranks import percentiles

__all__ = ["METHODS", "Method", "check_method", "explain", "method_names", "summary"]


@torch.inference_mode(False)  # gradients are taken also for a caller who asked for none
def explain(
    method: str,
    /,
    model: NEM | Backbone,
    image: NDArray[np.uint8],
    target: Target | None = None,
    *,
    seed: int = 0,
    memory_mb: int = 512,
    **options: Any,
) -> Explanation:
    """Explain pictures by any method.

    Args:
        method: one of `method_names()`.
        model: a NEM; a Backbone is enough for methods without a decoder. Left as it is.
        image: RGB uint8, (H, W, 3) or (N, H, W, 3), of any size.
        target: class to explain, by number or name, one for all or one per picture; None, or -1,
            is the most probable one. Methods that explain the embedding take none.
        seed: of all chance.
        memory_mb: bound for the pictures that are seen at once.
        **options: of the method's own function, as `masks` of "relax".

    Returns:
        The explanation. `mask` is the positive part of the map, stretched per picture to 0 .. 1 (a
        flat map is 0); of trained heads the mask as it is, of rankings the percentile. `raw` is
        the map before that.

    Raises:
        MethodError: no such method or option, a target it can't explain, or a head that the
            model lacks.
        MissingError: the library that it needs is not installed.
        ArgumentError: the image is no RGB uint8 picture, the model is none, or an option's value
            is not allowed.
        ModelError: the model lacks what the method needs, as classes; or its weights have 16 bits.
    """
    check_method(method)
    _load(method)
    began = time.perf_counter()
    if not isinstance(model, NEM | Backbone):
        raise ArgumentError(
            f"model: expected a NEM or a Backbone, got {type(model).__name__}; make one with "
            "nem.bundle_io.load_model(name) or nem.backbone.create_backbone(name)"
        )
    backbone = model.backbone if isinstance(model, NEM) else model
    pictures = _pictures(image, backbone.input_size)
    like = next(backbone.parameters())
    if like.dtype not in (torch.float32, torch.float64):
        raise ModelError(
            f"backbone {backbone.name}: its weights are {like.dtype}, methods work in float32 or "
            "float64; give model.float()"
        )
    x = normalise(torch.from_numpy(pictures).to(like.device), backbone.mean, backbone.std)
    x = x.to(like.dtype)
    of = _of(method, target, options)
    names, chosen = class_names(backbone.classes, backbone.num_classes), None
    if target is not None:
        chosen = torch.from_numpy(find_classes(names, target, len(x))).to(like.device)
    with quiet(model, gradient=True):
        if method in TRAINED:
            found, scores, embedding = _trained(method, model, x, chosen, memory_mb, options)
        else:
            found = _slow(method, backbone, x, chosen, of, seed, memory_mb, options)
            scores, embedding = _look(backbone, x, memory_mb)
    raw = _array(found.map)
    if not np.isfinite(raw).all():
        raise MethodError(f"method {method}: the map has values that are not finite; the model's?")
    probabilities = None if scores is None else _array(scores)
    uncertainty = None if found.uncertainty is None else _array(found.uncertainty)
    explained = None
    if of == "class" and probabilities is not None:
        best = probabilities.argmax(1).astype(np.int64)
        explained = best if chosen is None else np.where(chosen.cpu() < 0, best, chosen.cpu())
    return Explanation(
        mask=percentiles(raw) if method == "ra-nem" else _shown(method, raw),
        scores=probabilities,
        embedding=_array(embedding),
        names=names,
        seconds=time.perf_counter() - began,
        method=method,
        target=explained,
        raw=raw,
        uncertainty=uncertainty,
        forwards=found.forwards,
        backwards=found.backwards,
    )


def _of(method: str, target: Target | None, options: dict[str, Any]) -> str:
    """What is explained: "embedding" or "class"."""
    free = takes_target(method)
    if method in TRAINED:
        of = "embedding" if method == "nem-u" else "class"
    else:
        of = METHODS[method].of
        if of == "either":
            usual = inspect.signature(_function(method)).parameters["of"].default
            of = options.get("of", usual if target is None else "class")
            free = of != "embedding"
    if target is not None and not free:
        what = "the decided class" if of == "class" else "the embedding"
        raise MethodError(f"method {method} explains {what}: leave out target {target!r}")
    return of


def _trained(
    method: str,
    model: NEM | Backbone,
    x: Tensor,
    target: Tensor | None,
    memory_mb: int,
    options: dict[str, Any],
) -> tuple[Map, Tensor | None, Tensor]:
    """The map of a head, and what the same run gave: probabilities and embedding."""
    aim = AIM_OF[method]
    if not isinstance(model, NEM) or aim not in model.aims:
        has = ", ".join(model.aims) if isinstance(model, NEM) else "no decoder"
        raise MethodError(
            f"method {method}: the model has no head for it (it has: {has}); train one with "
            f"nem-stream train --method {method}"
        )
    if options:
        raise MethodError(f"method {method}: a trained head takes no {', '.join(options)}")
    part = pictures_per_run(x, memory_mb)
    rows = range(0, len(x), part)
    with torch.no_grad():
        outputs = [
            model(x[i : i + part], None if target is None else target[i : i + part]) for i in rows
        ]
    scores, embedding = _joined([(output.logits, output.embedding) for output in outputs])
    maps = torch.cat([output.maps[aim][:, 0] for output in outputs])
    return Map(maps, forwards=1, backwards=0), scores, embedding


def _slow(
    name: str,
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None,
    of: str,
    seed: int,
    memory_mb: int,
    options: dict[str, Any],
) -> Map:
    function = _function(name)
    allowed = set(inspect.signature(function).parameters) - {"backbone", "x", "target"}
    if unknown := sorted(set(options) - allowed):
        own = sorted(allowed - {"seed", "memory_mb"})
        raise MethodError(f"method {name}: no option {', '.join(unknown)}; it has {', '.join(own)}")
    if METHODS[name].of == "either":
        options = options | {"of": of}
    found: Map = function(backbone, x, target, seed=seed, memory_mb=memory_mb, **options)
    return found


def _load(name: str) -> None:
    """Import what a method needs: at the first use that takes seconds, which are not its own."""
    if name in METHODS:
        _function(name)
        if needs := METHODS[name].needs:
            library(needs, needs)


def _function(name: str) -> Callable[..., Map]:
    function: Callable[..., Map] = getattr(
        importlib.import_module(METHODS[name].module), METHODS[name].function
    )
    return function


@torch.no_grad()
def _look(backbone: Backbone, x: Tensor, memory_mb: int) -> tuple[Tensor | None, Tensor]:
    """Probabilities and embedding of the clean pass; not counted, as no method needs it."""
    runs = [backbone(part) for part in torch.split(x, pictures_per_run(x, memory_mb))]
    return _joined([(features.logits, features.embedding) for features in runs])


def _joined(runs: list[tuple[Tensor | None, Tensor]]) -> tuple[Tensor | None, Tensor]:
    scores = [logits.float().softmax(1) for logits, _ in runs if logits is not None]
    return torch.cat(scores) if scores else None, torch.cat([embedding for _, embedding in runs])


def _pictures(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if trouble := no_pictures(image):
        raise ArgumentError(f"image: {trouble}")
    pictures = image[None] if image.ndim == 3 else image
    return np.stack([squash(picture, size) for picture in pictures])


def _shown(method: str, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map as a mask in [0, 1]."""
    if method in TRAINED:
        return raw
    low, high = (edge(axis=(1, 2), keepdims=True) for edge in (raw.min, raw.max))
    # What differs by rounding alone is flat: stretched it would be noise.
    varied = high - low > 1e-6 * np.abs(raw).max(axis=(1, 2), keepdims=True)
    low, high = low.clip(0), high.clip(0)
    stretched = (raw.clip(0) - low) / (high - low).clip(np.finfo(np.float32).tiny)
    return np.where(varied, stretched, np.float32(0))


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.detach().float().cpu().numpy()
    return array

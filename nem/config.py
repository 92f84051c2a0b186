"""The settings of a training. Imports no torch, so a command line can check them quickly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nem.bundle import is_bundle
from nem.errors import TrainError
from nem.explanation import AIM_OF, Aim

Fill = Literal["mean", "noise"]
Variant = Literal["intent", "code", "printed"]
Precision = Literal["32", "bf16"]
Score = Literal["softmax", "logits"]

CHECKPOINT = "last.safetensors"
"""In `out`, of the training so far."""

# What may change between a training and its continuation; of the devices not their number.
_FREE = frozenset({"out", "resume", "workers", "accelerator", "devices", "memory_mb", "data"})

_OF = {
    ("nem-u",): ("loss", "area_weight"),
    ("nemt", "nemt-target"): ("class_area_weight", "score"),
    ("ra-nem",): ("ks", "stratified", "detach_threshold", "deletion_weight", "grid"),
}
"""What does nothing unless one of these methods is trained."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train a decoder for, on what, and how. The defaults are NEM-U's.

    Attributes:
        data: image files, video files and folders of them.
        out: folder for checkpoints, the log and pictures of masks.
        model: timm model name, or a bundle (embedded name, folder, hub id) whose backbone is
            taken. None if `fit` is given a backbone.
        weights: of a timm model: "timm" (fetched from its hub), a safetensors file, or "none"
            (random). None means "timm"; a bundle brings its own.
        model_kwargs: further arguments of `timm.create_model`.
        input_size: side of the square input in pixels; None: what timm says.
        decoder: "lite" or "paper".
        decoder_kwargs: options of the decoder.
        methods: "nem-u", "nemt", "ra-nem", "nemt-target": a head is trained for each, all on one
            decoder; the first is the bundle's default.
        hold: those of `methods` whose heads are to keep the maps of the decoder that training
            begins with, while the others learn.
        loss: of nem-u: "intent", "code" or "printed", see `nem.losses`.
        area_weight: of nem-u: factor of the loss's area term; more gives smaller masks.
        class_area_weight: the same of nemt and nemt-target, lambda_1 of NEMt.
        score: of nemt and nemt-target: "softmax", or "logits" in units of the model's own (their
            mean lead over the average class, measured before the training).
        ks: of ra-nem: how many counts of pixels are drawn per picture.
        stratified: of ra-nem: draw them one from each of `ks` equal ranges.
        detach_threshold: of ra-nem: no gradient through the threshold of the top k.
        deletion_weight: of ra-nem: factor of a term that also lowers the score of the rest.
        grid: of ra-nem: choose the top k on a grid of so many cells per side; None: pixels.
        fill: what hides pixels: "mean" (pixel scaling) or "noise".
        batch_size: pictures per process and forward pass.
        accumulate: batches per optimiser step.
        epochs: times to go through the data; a fraction stops within an epoch.
        max_steps: stop after this many optimiser steps at the latest.
        lr: learning rate, which for Prodigy is a factor.
        weight_decay: decoupled weight decay.
        cosine: let the learning rate fall to 0 along a cosine.
        precision: "32", or "bf16" mixed.
        accelerator: "auto", "cpu" or "gpu".
        devices: how many, or "auto" for all.
        workers: processes that load data. 0 is best while pictures fit in memory.
        memory_mb: memory for decoded pictures, in MiB.
        every: of a video, take each `every`-th frame.
        flip: mirror half of the pictures. Off: the method uses no augmentation.
        seed: of initial weights, order, noise and mirroring.
        resume: go on from the checkpoint in `out`, or begin if there is none.
        early_step: optimiser step after which a first picture of masks is written.
        pictures: how many pictures it shows.
    """

    data: tuple[Path | str, ...]
    out: Path
    model: str | Path | None = None
    weights: str | Path | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_size: int | None = None
    decoder: Literal["lite", "paper"] = "lite"
    decoder_kwargs: Mapping[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = ("nem-u",)
    hold: tuple[str, ...] = ()
    loss: Variant = "intent"
    area_weight: float = 1.0
    class_area_weight: float = 0.5
    score: Score = "softmax"
    ks: int = 6
    stratified: bool = False
    detach_threshold: bool = False
    deletion_weight: float = 0.0
    grid: int | None = None
    fill: Fill = "mean"
    batch_size: int = 32
    accumulate: int = 4
    epochs: float = 10.0
    max_steps: int | None = None
    lr: float = 1.0
    weight_decay: float = 0.01
    cosine: bool = True
    precision: Precision = "32"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = "auto"
    workers: int = 0
    memory_mb: int = 2048
    every: int = 10
    flip: bool = False
    seed: int = 0
    resume: bool = False
    early_step: int = 25
    pictures: int = 16

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_numbers()
        self._check_model()
        if isinstance(self.data, str | Path):
            raise TrainError(f"data {self.data}: give a list of paths, as [{str(self.data)!r}]")
        if not self.data:
            raise TrainError("data: nothing given; name a folder of images or video files")
        if Path(self.out).exists() and not Path(self.out).is_dir():
            raise TrainError(f"out {self.out}: is a file; give a folder")

    @property
    def aims(self) -> tuple[Aim, ...]:
        """What the heads of the methods explain."""
        return tuple(AIM_OF[method] for method in self.methods)

    @property
    def from_bundle(self) -> bool:
        """Whether the backbone is a bundle's."""
        return self.model is not None and is_bundle(self.model)

    def recipe(self) -> dict[str, Any]:
        """The settings that decide the result, in JSON's types; equal for a continuation."""
        values = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _FREE
        }
        return {k: _plain(v) for k, v in values.items()}

    def _check_choices(self) -> None:
        choices = {
            "decoder": ("lite", "paper"),
            "loss": get_args(Variant),
            "fill": get_args(Fill),
            "precision": get_args(Precision),
            "accelerator": ("auto", "cpu", "gpu"),
            "score": get_args(Score),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise TrainError(f"{name} {value!r}: allowed are {', '.join(allowed)}")
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise TrainError(f"methods {self.methods}: name one or several, each once")
        for method in self.methods:
            if method not in AIM_OF:
                raise TrainError(f"method {method!r}: allowed are {', '.join(AIM_OF)}")
        if unknown := sorted(set(self.hold) - set(self.methods)):
            raise TrainError(f"hold {', '.join(unknown)}: allowed are those of methods")
        if set(self.hold) == set(self.methods):
            raise TrainError(f"hold {', '.join(self.hold)}: leaves no head to train; hold fewer")
        if self.devices != "auto" and (not isinstance(self.devices, int) or self.devices < 1):
            raise TrainError(f"devices {self.devices!r}: allowed are 'auto' and numbers from 1")

    def _check_numbers(self) -> None:
        least = {
            "batch_size": 2, "accumulate": 1, "max_steps": 1, "every": 1, "memory_mb": 1,
            "workers": 0, "weight_decay": 0, "input_size": 16, "early_step": 1, "pictures": 1,
            "seed": 0, "area_weight": 0, "class_area_weight": 0, "ks": 1, "deletion_weight": 0,
            "grid": 2,
        }  # fmt: skip
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise TrainError(f"{name} {value}: must be at least {bound}")
        usual = {f.name: f.default for f in dataclasses.fields(self)}
        for methods, options in _OF.items():
            useless = [name for name in options if getattr(self, name) != usual[name]]
            if useless and not set(methods) & set(self.methods):
                raise TrainError(
                    f"{', '.join(useless)}: of {' and '.join(methods)}, not trained; leave it out"
                )
        for name in ("epochs", "lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise TrainError(f"{name} {getattr(self, name)}: must be above 0 and finite")

    def _check_model(self) -> None:
        if self.from_bundle:
            given = {
                "weights": self.weights, "model_kwargs": self.model_kwargs or None,
                "input_size": self.input_size,
            }  # fmt: skip
            if clash := [name for name, value in given.items() if value is not None]:
                raise TrainError(
                    f"{', '.join(clash)}: not with bundle {self.model}, which brings its own; "
                    "leave it out or name a timm model"
                )
        elif self.model is not None and len(Path(self.model).parts) > 1:
            raise TrainError(
                f"model {self.model}: no such folder; give a timm name, or a bundle (name, "
                "folder, or hub id owner/name)"
            )
        elif self.model is None and self.weights is not None:
            raise TrainError(f"weights {self.weights}: of which model? name one")
        elif self.weights not in (None, "timm", "none") and not Path(str(self.weights)).is_file():
            raise TrainError(
                f"weights {self.weights}: no such file; allowed are timm, none, or a "
                "safetensors file"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value

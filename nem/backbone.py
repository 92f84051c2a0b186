"""The frozen model: one run gives pyramid, embedding and logits.

Channels, strides, mean, deviation and input size are asked of timm, never tabled.
"""

from __future__ import annotations

import difflib
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import timm
import torch
import torch.nn.functional as F
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from nem.errors import ModelError, first_line
from nem.logs import quiet_hub
from nem.manifest import FOREIGN_ARGUMENTS

TOKEN_MAPS = 4
"""How many evenly spaced blocks of a model without a pyramid (a ViT) the decoder sees."""


class Features(NamedTuple):
    """What one run of the backbone gives.

    Attributes:
        pyramid: maps (N, C_i, H_i, W_i), fine to coarse; see `Backbone.channels`.
        embedding: (N, D), the features before the classifier.
        logits: (N, classes), or None for a model without a classifier.
    """

    pyramid: list[Tensor]
    embedding: Tensor
    logits: Tensor | None


class Backbone(nn.Module):
    """A timm model, frozen: no gradients to its weights, always in eval mode.

    Attributes:
        name, kwargs: what `create_backbone` builds the same architecture from.
        source: where the weights came from, for people.
        channels: channels of each pyramid map, fine to coarse.
        strides: input pixels per map pixel, same order. Maps of a ViT share one stride.
        input_size: side of the square input in pixels.
        mean, std: of the input's RGB channels, in units of a [0, 1] image.
        num_classes: classes of the logits, 0 without.
        classes: their names, empty if unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        kwargs: Mapping[str, Any] | None = None,
        source: str = "random",
        input_size: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        if not hasattr(model, "forward_intermediates") or not hasattr(model, "forward_head"):
            raise ModelError(f"backbone {name}: timm can't give its feature maps; choose another")
        timm_model: Any = model
        cfg = dict(timm_model.pretrained_cfg)
        self.name, self.kwargs, self.source = name, dict(kwargs or {}), source
        self.input_size = input_size or int(cfg["input_size"][-1])
        self.mean = _three(mean or cfg["mean"])
        self.std = _three(std or cfg["std"])
        self.num_classes = int(timm_model.num_classes)
        if classes and len(classes) != self.num_classes:
            raise ModelError(f"backbone {name}: {len(classes)} names for {self.num_classes} logits")
        self.classes = tuple(classes)
        levels = [(int(i["num_chs"]), int(i["reduction"])) for i in timm_model.feature_info]
        # A pyramid may hold several maps of one stride: the last, deepest one counts.
        last = {stride: index for index, (_, stride) in enumerate(levels)}
        self.is_pyramid = len(last) > 1
        if self.is_pyramid:
            self.indices = sorted(last.values())
        else:
            self.indices = [len(levels) * (i + 1) // TOKEN_MAPS - 1 for i in range(TOKEN_MAPS)]
            if self.indices[0] < 0:
                raise ModelError(f"backbone {name}: {len(levels)} feature map(s), 4 are needed")
        self.channels = tuple(levels[i][0] for i in self.indices)
        self.strides = tuple(levels[i][1] for i in self.indices)
        self.model = model.requires_grad_(False)
        self.eval()
        self._fit()

    @torch.no_grad()
    def _fit(self) -> None:
        """Set an input size that is not timm's, and try it; try a stem that is not for RGB."""
        side, model = self.input_size, cast(Any, self.model)
        usual = side == int(model.pretrained_cfg["input_size"][-1]) == (_built_size(model) or side)
        if usual and self.kwargs.get("in_chans", 3) == 3:
            return
        if not self.is_pyramid and side % self.strides[-1]:
            raise ModelError(
                f"backbone {self.name}: input size {side} is no multiple of its patches' "
                f"{self.strides[-1]} pixels, so it would not see the edge; take "
                f"{side - side % self.strides[-1] or self.strides[-1]}"
            )
        try:  # models refuse a size in many ways, some only when run
            with warnings.catch_warnings(action="ignore"):  # of timm's code, on its use of torch
                if hasattr(model, "set_input_size") and side != _built_size(model):
                    model.set_input_size(img_size=(side, side))
                self(next(model.parameters()).new_zeros(1, 3, side, side))
        except Exception as error:
            raise ModelError(
                f"backbone {self.name}: does not run on pictures of {side} x {side} "
                f"({first_line(error)}); choose another input size or model"
            ) from error

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode whatever the surrounding module is told: the backbone is frozen."""
        return super().train(False)

    def forward(self, x: Tensor) -> Features:
        """One run.

        Args:
            x: normalised pictures, float (N, 3, S, S) with S = `input_size`.
        """
        model: Any = self.model
        final, pyramid = model.forward_intermediates(x, indices=self.indices)
        embedding = model.forward_head(final, pre_logits=True)
        # The whole head again: it may hold more than the classifier after the embedding.
        logits = model.forward_head(final) if self.num_classes else None
        return Features(list(pyramid), embedding, logits)

    def embed(self, x: Tensor) -> Tensor:
        """Only the embedding (N, D) of normalised pictures (N, 3, S, S)."""
        model: Any = self.model
        embedding: Tensor = model.forward_head(model.forward_features(x), pre_logits=True)
        return embedding

    @property
    def has_class_rows(self) -> bool:
        """Whether there are `class_rows`: classes, by a linear classifier."""
        return isinstance(self.classifier, nn.Linear | nn.Conv2d)

    def class_rows(self) -> Tensor:
        """The classifier's rows as directions, (classes, D): less their mean, of length 1.

        The mean of all rows moves all logits alike, so it says nothing of a class.

        Raises:
            ModelError: no classes, or a classifier that is not linear.
        """
        classifier = self.classifier
        if not isinstance(classifier, nn.Linear | nn.Conv2d):
            raise ModelError(
                f"backbone {self.name}: a target head needs a linear classifier, found "
                f"{type(classifier).__name__ if self.num_classes else 'no classes'}"
            )
        rows = classifier.weight.flatten(1)
        return F.normalize(rows - rows.mean(0), dim=1)

    @property
    def classifier(self) -> nn.Module | None:
        """What makes the logits of the embedding; None without classes."""
        model: Any = self.model
        return model.get_classifier() if self.num_classes else None


def create_backbone(
    name: str,
    weights: Path | str | None = None,
    *,
    input_size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    classes: tuple[str, ...] = (),
    **kwargs: Any,
) -> Backbone:
    """Build a timm model and freeze it.

    Args:
        name: timm model name, as "resnet50" or "resnet50.a1_in1k".
        weights: "timm" fetches the pretrained weights from the hub, a path reads a safetensors
            file, whose classifier tells the number of classes, None leaves them random.
        input_size: side of the square input; default what timm says.
        mean: per-channel mean; default what timm says.
        std: per-channel deviation; default what timm says.
        classes: class names; default timm's own ImageNet names where it knows them.
        **kwargs: further arguments of `timm.create_model`.

    Raises:
        ModelError: unknown name, arguments timm refuses, weights that don't fit, or a hub that
            can't be reached.
    """
    if foreign := sorted(FOREIGN_ARGUMENTS & kwargs.keys()):
        raise ModelError(f"backbone {name}: {', '.join(foreign)} not allowed; use `weights`")
    if ":" in name or not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ModelError(f"backbone {name}: timm has no such model; {hint}")
    pretrained = weights == "timm"
    own_file = None if weights is None or pretrained else Path(weights)
    try:
        with quiet_hub():
            model = timm.create_model(name, pretrained=pretrained, **kwargs)
        if own_file is not None and "num_classes" not in kwargs:
            count = _classes_in(own_file, model)
            if count not in (None, model.num_classes):
                kwargs["num_classes"] = count
                model = timm.create_model(name, **kwargs)
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"backbone {name}: can't fetch it from the hub ({first_line(error)}); check the "
            "network, or give a local weights file (--weights FILE) or none (--weights none)"
        ) from None
    except Exception as error:  # models refuse in many ways
        raise ModelError(
            f"backbone {name} with {json.dumps(kwargs, default=str)}: timm refuses: "
            f"{first_line(error)}"
        ) from error
    source = f"timm {name}" if pretrained else "random"
    if own_file is not None:
        load_weights(model, own_file, name)
        source = f"file {own_file.name}"
    if not classes and weights is not None:
        classes = _known_classes(model)
    return Backbone(
        model, name=name, kwargs=kwargs, source=source, input_size=input_size, mean=mean, std=std,
        classes=classes,
    )  # fmt: skip


def _classes_in(path: Path, model: nn.Module) -> int | None:
    """How many classes the classifier of a file has; None where that can't be told."""
    told = cast(Any, model).pretrained_cfg.get("classifier")
    name = f"{told[0] if isinstance(told, list | tuple) and told else told}.weight"
    try:
        with safe_open(path, framework="pt") as file:
            return int(file.get_slice(name).get_shape()[0]) if name in set(file.keys()) else None
    except (SafetensorError, OSError):
        return None  # `load_weights` tells


def load_weights(model: nn.Module, path: Path, name: str) -> None:
    """Read a safetensors file with exactly the tensors of `model`.

    Raises:
        ModelError: not a readable safetensors file; or tensors missing, unknown, of other shape, or
            not finite.
    """
    try:
        path.open("rb").close()  # safetensors takes whatever it can't open for missing
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"weights {path}: expected a safetensors file ({first_line(error)}); pickled "
            "checkpoints are not read, convert with safetensors.torch.save_file"
        ) from None
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or unknown or other:
        kinds = {"missing": missing, "unknown": unknown, "of another shape": other}
        told = (f"{len(k)} {what} (first: {k[0]})" for what, k in kinds.items() if k)
        raise ModelError(f"weights {path} don't fit {name}: tensors {', '.join(told)}")
    if broken := next((k for k, v in state.items() if not v.isfinite().all()), None):
        raise ModelError(f"weights {path}: {broken} has values that are not finite; get them again")
    model.load_state_dict(state)


def _built_size(model: nn.Module) -> int | None:
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return int(size[0]) if size and size[0] == size[1] else None


def _known_classes(model: nn.Module) -> tuple[str, ...]:
    """Names timm knows for an ImageNet classifier; empty for anything else."""
    timm_model: Any = model
    if timm_model.num_classes != timm_model.pretrained_cfg.get("num_classes"):
        return ()
    subset = infer_imagenet_subset(timm_model)
    names = tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()
    return names if len(names) == timm_model.num_classes else ()


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    if not all(math.isfinite(v) for v in (red, green, blue)):
        raise ModelError(f"mean and deviation must be finite, not {values}")
    return red, green, blue

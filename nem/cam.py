"""Class activation maps: what the last map says, for a class or for the embedding.

`cam` and `lafam` need one run and no gradient. `grad_cam` and `grad_cam_plus_plus` are
pytorch-grad-cam's; the gradient goes back to the last map only, so layers before it keep nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from nem.backbone import Backbone
from nem.budget import pictures_per_run
from nem.errors import ModelError
from nem.explained import Explained, Of, check_pictures, library, parts, targets
from nem.layers import resize
from nem.method import Map
from nem.stages import final_layout, find_stage, has_layer, layout_of, stage_names


def grad_cam(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    of: Of = "class",
    softmax: bool = False,
    layer: str | None = None,
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """Grad-CAM (Selvaraju et al. 2017): channels weighted by their mean gradient.

    Args:
        backbone: the model, a CNN or a transformer.
        x: normalised pictures, float (N, 3, S, S).
        target: (N,) int64, the class; below 0, or None, the most probable one. Ignored for the
            embedding.
        of: "class", or "embedding": the gradient is that of <f(x), f(z)>.
        softmax: of a class take the probability, not the logit.
        layer: name of the timm model's module to look at; default the last stage, in a ViT the
            last block's first norm, as after the last block only the class token counts.
        seed: nothing is random, so it changes nothing.
        memory_mb: bound for the memory of the pictures seen at once.

    Returns:
        Values in [0, 1]: the positive part, scaled per picture from its smallest to its largest
        value, as pytorch-grad-cam gives it.

    Raises:
        ArgumentError: pictures, target or options that don't fit.
        ModelError: a class is asked of a model without classes, or no such layer.
        MissingError: pytorch-grad-cam isn't installed.
    """
    return _grad_cam("GradCAM", backbone, x, target, of, softmax, layer, memory_mb)


def grad_cam_plus_plus(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    of: Of = "class",
    softmax: bool = False,
    layer: str | None = None,
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """Grad-CAM++ (Chattopadhay et al. 2018): positive gradients, weighted per place.

    Arguments, result and errors as `grad_cam`.
    """
    return _grad_cam("GradCAMPlusPlus", backbone, x, target, of, softmax, layer, memory_mb)


@torch.no_grad()
def cam(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """CAM (Zhou et al. 2016): the class's row of the classifier times the last map.

    Where the model pools the map and classifies the mean, the map's mean is the logit less its
    bias. Other heads (a norm or a layer after pooling; a class token) are applied to each place
    as if all places were alike, which gives the same for a plain head and stays a fair reading of
    the others.

    Args:
        backbone: a model with a linear classifier.
        x: normalised pictures, float (N, 3, S, S).
        target: (N,) int64, the class; below 0, or None, the most probable one.
        seed: nothing is random, so it changes nothing.
        memory_mb: bound for the memory of the pictures seen at once.

    Returns:
        Signed values in units of the logit, bilinear from the last map.

    Raises:
        ArgumentError: pictures or a target that don't fit.
        ModelError: no classes, a classifier that isn't linear, or a head that can't be applied to
            a single place.
    """
    check_pictures(backbone, x)
    rows = _classifier_rows(backbone)
    part = pictures_per_run(x, memory_mb)
    chosen, first = targets(backbone, x, target, part)
    model: Any = backbone.model
    drawn = []
    for z, c in parts(part, x, chosen):
        embeddings = _embed_places(backbone, model.forward_features(z))
        drawn.append(_enlarge((embeddings * rows[c][:, :, None, None]).sum(1), backbone))
    return Map(torch.cat(drawn), first + 1, 0)


@torch.no_grad()
def lafam(
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None = None,
    *,
    seed: int = 0,
    memory_mb: int = 512,
) -> Map:
    """LaFAM (Karjauv & Albayrak 2024): the mean over channels of the last map. Label-free.

    Made for CNNs whose maps are positive; where maps have signs the mean is of little meaning.

    Args:
        backbone: the model.
        x: normalised pictures, float (N, 3, S, S).
        target: ignored.
        seed: nothing is random, so it changes nothing.
        memory_mb: bound for the memory of the pictures seen at once.

    Returns:
        Values in [0, 1]: scaled per picture from the smallest to the largest value, 0 where all
        are equal; then bilinear.

    Raises:
        ArgumentError: pictures that don't fit.
    """
    check_pictures(backbone, x)
    drawn = []
    for (z,) in parts(pictures_per_run(x, memory_mb), x):
        mean = backbone(z).pyramid[-1].mean(1)
        mean = mean - mean.amin((1, 2), keepdim=True)
        most = mean.amax((1, 2), keepdim=True)
        drawn.append(_enlarge(mean / torch.where(most > 0, most, 1), backbone))
    return Map(torch.cat(drawn), 1, 0)


def _grad_cam(
    name: Literal["GradCAM", "GradCAMPlusPlus"],
    backbone: Backbone,
    x: Tensor,
    target: Tensor | None,
    of: Of,
    softmax: bool,
    layer: str | None,
    memory_mb: int,
) -> Map:
    check_pictures(backbone, x)
    g = Explained(backbone, of, softmax=softmax)
    layer = layer or _last_layer(backbone)
    module = find_stage(backbone, layer)
    layout = layout_of(backbone, layer)
    part = pictures_per_run(x, memory_mb, gradient=True)
    chosen, first = targets(backbone, x, target, part) if of == "class" else (None, 0)
    make = getattr(library("pytorch_grad_cam", "pytorch-grad-cam"), name)
    drawn = []
    # Ours first: pytorch-grad-cam then sees the map from which the gradient starts.
    with (
        module.register_forward_hook(_restart),
        make(
            model=_Outputs(g),
            target_layers=[module],
            reshape_transform=lambda output: layout.split(output)[0],
        ) as extractor,
    ):
        for index, (z,) in enumerate(parts(part, x.detach())):
            picks = None if chosen is None else chosen[index * part :]
            with torch.enable_grad():
                numbers = extractor(z, [_pick(g, picks, i) for i in range(len(z))])
            drawn.append(torch.from_numpy(numbers).float())
    return Map(torch.cat(drawn).to(x.device), first + 1, 1)


class _Outputs(nn.Module):
    """What pytorch-grad-cam takes for the model: embeddings or scores."""

    def __init__(self, g: Explained) -> None:
        super().__init__()
        self.g = g

    def forward(self, z: Tensor) -> Tensor:
        return self.g.outputs(z)


def _pick(g: Explained, chosen: Tensor | None, index: int) -> Callable[[Tensor], Tensor]:
    """The number explained of one picture, from its row of the outputs."""

    def pick(row: Tensor) -> Tensor:
        reference = row.detach() if chosen is None else chosen[index]
        return g.pick(row[None], reference[None])[0]

    return pick


def _restart(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    """Start the gradient at the module's output: nothing before it needs one."""
    # Not the leaf itself: the model may go on in place.
    return output.detach().requires_grad_().clone()


def _last_layer(backbone: Backbone) -> str:
    last = stage_names(backbone)[-1]
    if not has_layer(backbone, last) and has_layer(backbone, "norm"):
        return "norm"  # Twins, MViTv2: it gives the tokens that are pooled
    block = find_stage(backbone, last)
    return f"{last}.norm1" if not backbone.is_pyramid and hasattr(block, "norm1") else last


def _classifier_rows(backbone: Backbone) -> Tensor:
    """(classes, D)."""
    classifier = backbone.classifier
    if not isinstance(classifier, nn.Linear):
        raise ModelError(
            f"backbone {backbone.name}: CAM needs a linear classifier, found "
            f"{type(classifier).__name__ if backbone.num_classes else 'no classes'}; take lafam"
        )
    return classifier.weight


def _embed_places(backbone: Backbone, final: Tensor) -> Tensor:
    """The head's embedding of each place alone, (N, D, H, W), from the final map or tokens."""
    model = cast(Any, backbone.model)
    layout = final_layout(backbone)
    drawn, prefix = layout.split(final)
    n, _, height, width = drawn.shape
    places = drawn.permute(0, 2, 3, 1).reshape(n * height * width, -1)
    if final.ndim == 3:  # every token the same, so that any pooling gives just it
        alone = places[:, None].expand(-1, 1 + (0 if prefix is None else prefix.shape[1]), -1)
    else:
        alone = places[:, None, None] if layout.channels_last else places[:, :, None, None]
    try:
        embeddings: Tensor = model.forward_head(alone, pre_logits=True)
    except RuntimeError as error:
        raise ModelError(
            f"backbone {backbone.name}: its head can't be applied to a single place ({error}); "
            "take lafam or grad_cam"
        ) from None
    return embeddings.view(n, height, width, -1).permute(0, 3, 1, 2)


def _enlarge(maps: Tensor, backbone: Backbone) -> Tensor:
    """(N, H, W) to (N, S, S), float32."""
    return resize(maps[:, None].float(), backbone.input_size)[:, 0]

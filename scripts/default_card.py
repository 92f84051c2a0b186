"""The model card of the embedded default, written with the figures of the run that made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nem.bundle import Bundle
from scripts.default_quality import JUDGED, RANKED

TEXT = """\
# {name}

The bundle inside nem-stream: a small image classifier of {classes} everyday classes and a decoder
that shows, for every frame, which pixels decided what the classifier says.

| | |
| --- | --- |
| backbone | timm `{backbone}`, {backbone_params:.2f} M parameters, {weights} |
| decoder | `lite`, {decoder_params:.2f} M parameters, one trunk, four heads; hidden = data mean |
| heads | `embedding` (NEM-U, `intent`), `class` (NEMt), `ranking` (Ra-NEM), `target` (any) |
| input | {size} x {size} RGB; frames are squashed to it, not cropped |
| output | a mask {size} x {size} in [0, 1] per head, {classes} class probabilities, embedding |

## How it was made

```
{command}
```

* Data: {data} (Imagenette, Caltech-101, cats and dogs; short side 144 pixels), seed {seed}.
* Versions: {versions}.
* Backbone: {origin}{tuned}.
* Decoder: all heads together, one run of the backbone per step; composites show one object amid
  clutter or two in one scene. It never changed the backbone.{began}{note}

## Measured

{quality}

Top-1 is on the {validation} validation pictures, squashed as in use. The heads' figures are means
over {judged} of them, `ranking` over one in {ranked} of these:

* `kept`: cosine between the embedding of the whole picture and of the part the mask keeps;
  `complement`: of the part it hides; `control`: of smooth random places with the mask's own values.
* `drop`: what hiding the marked part takes from the probability of the class; `alone`: the
  probability the marked part alone gives.
* `absent_over_true`: mean map of a class that is not in the picture over that of the decided one.
* `insertion`, `deletion`: areas under the curves of the class's probability over 50 steps, from the
  blurred picture and to the data mean.
* `area`: the mask's mean.

`scripts/eval_masks` and `scripts/eval_methods` compare with other methods and on real video.

## What it can't do

* It knows {classes} classes, half of them from fewer than 60 pictures. For anything else it names
  the nearest it knows; its probabilities are not calibrated.
* The mask shows what this small model's features depend on. It is not a segmentation, it can be
  right for a wrong prediction, and it says nothing about other models.
* The pictures show mostly one large object. Small, crowded or dark scenes are outside of them.
* Train a decoder for your own model before you draw conclusions about it: `nem-stream train`.
"""

FROM_SCRATCH = """\
SGD, progressive image size, CutMix and mixup, label smoothing, an averaged copy of the
  weights, and a third of the pictures seen through random masks, so that masked pictures are not
  foreign to it"""
SLIM = """\
the last blocks and the channels of least weight were cut off that of bundle `{start}`,
  which then gave half of each target.
  """
BEGAN = " It began as that of\n  `{start}`, the same channels cut out of it."
TUNED = ". Then tuned with half of the objects small amid clutter and fewer masks"


def weights_source(start: Bundle | None, slim: bool, tuned: bool) -> str:
    """Where the backbone's weights came from, as the manifest tells it.

    Args:
        start: bundle whose backbone was taken, None if it was trained from scratch.
        slim: it was cut out of that backbone.
        tuned: it was trained a second time.
    """
    if start is None:
        return "trained from scratch by scripts/train_default"
    source = start.manifest.backbone.source
    if slim:
        return f"cut out of bundle {start.path.name} ({source}), trained by scripts/train_default"
    if not tuned:
        return source  # these are the same weights
    return f"bundle {start.path.name} ({source}), tuned by scripts/train_default"


def model_card(
    *,
    name: str,
    backbone: str,
    backbone_params: float,
    decoder_params: float,
    classes: int,
    size: int,
    validation: int,
    start: str | None,
    slim: bool,
    tuned: bool,
    training: Mapping[str, Any],
    quality: Mapping[str, float],
) -> str:
    """The card as Markdown.

    Args:
        name: of the bundle.
        backbone: timm's name of it.
        backbone_params: in millions.
        decoder_params: in millions.
        classes: number of classes.
        size: side of the input.
        validation: number of validation pictures.
        start: bundle whose backbone was taken, None if it was trained from scratch.
        slim: it was cut out of that backbone.
        tuned: the backbone was trained a second time.
        training: as in the manifest.
        quality: by figure name.
    """
    if start is None:
        weights, origin = "trained from scratch", FROM_SCRATCH
    elif slim:
        weights, origin = f"cut out of bundle `{start}`", SLIM.format(start=start) + FROM_SCRATCH
    else:
        weights, origin = f"from bundle `{start}`", f"that of bundle `{start}`"
    rows = "\n".join(f"| {key} | {value:.4f} |" for key, value in quality.items())
    versions = ", ".join(f"{k} {v}" for k, v in training["versions"].items())
    return TEXT.format(
        name=name,
        backbone=backbone,
        backbone_params=backbone_params,
        decoder_params=decoder_params,
        weights=weights,
        origin=origin,
        tuned=TUNED if tuned else "",
        began=BEGAN.format(start=start) if slim else "",
        classes=classes,
        size=size,
        validation=validation,
        judged=min(JUDGED, validation),
        ranked=RANKED,
        command=training["command"],
        data=training["data"],
        seed=training["seed"],
        note=f"\n* Note: {training['note']}." if training.get("note") else "",
        versions=versions,
        quality="| figure | value |\n| --- | --- |\n" + rows,
    )

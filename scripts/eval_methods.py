"""Compare methods on the same pictures: faithfulness, shape, localisation, cost; wins and losses.

    python -m scripts.eval_methods --data runs/default/data/objects/val \
        --coco ../shared/data/coco --davis ../shared/data/davis --json methods.json

Pictures are `--limit` of `--data` (a folder per class), drawn by `--seed`. Of each the mask is
stretched to 0 .. 1. Per method, means over the pictures of

* insertion, deletion, faith: areas under the curves of the decided class's probability over 50
  steps, from the blurred picture and to the data mean, and their difference (`nem.faithfulness`);
  faith-sure, faith-unsure: that difference where the probability is at least 0.7, or below;
* faith-emb: the same difference for the cosine to the whole picture's embedding;
* entropy (nats), gini, area of the mask;
* forwards, backwards of the backbone; ms: median wall time of one picture alone;
* mass, rank, point: `nem.metrics` on the objects of `--coco`, all of a picture together, and on
  each `--every`-th frame of `--davis`.

`centre` (a Gaussian in the middle) and `random` (noise) are no methods but what one has to beat.
With `--json` each method is kept when it is done, and a later call goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from engines import resize
from nem import metrics
from nem.bundle import open_bundle
from nem.bundle_io import load_model
from nem.data import normalise
from nem.errors import NemError
from nem.explanation import Explanation
from nem.faithfulness import faithfulness
from nem.methods import check_method, explain
from nem.model import NEM
from nem.objectives import absent_from
from nem.scoring import class_and_embedding_score
from scripts.ending import count, launch, new_file
from scripts.eval_masks import centre_gaussian, mean_of, on_object
from scripts.eval_methods_data import Labelled, Marked, coco_pictures, davis_frames, labelled
from scripts.eval_methods_table import Result, print_result, save, start

Array = NDArray[Any]
CONTROLS = ("centre", "random")
METHODS = (
    "nem-u", "nemt", "ra-nem", "nemt-target", "relax", "u-relax", "rise", "grad-cam",
    "grad-cam++", "cam", "lafam", "saliency", "integrated-gradients", *CONTROLS,
)  # fmt: skip
SETTINGS = ("limit", "masks", "seed", "every", "device", "precision")
SURE = 0.7
"""A decided class at least so probable is a sure one."""

MASKS = {"relax": 3000, "u-relax": 3000, "umt-relax": 3000, "rise": 1000}


def run(method: str, model: NEM, picture: Array, seed: int, masks: float) -> Explanation:
    """One picture by one method, or by a control."""
    if method in CONTROLS:
        size = model.backbone.input_size
        values = (
            centre_gaussian(size)
            if method == "centre"
            else np.random.default_rng(seed).random((size, size), np.float32)
        )
        nothing = np.zeros((1, 0), np.float32)
        return Explanation(values[None], None, nothing, (), 0.0, method, forwards=0)
    options = {"masks": max(1, round(MASKS[method] * masks))} if method in MASKS else {}
    kind = next(model.parameters()).device.type
    half = method in MASKS and torch.is_autocast_enabled(kind)  # gradients stay exact
    with torch.autocast(kind, torch.bfloat16, enabled=half):
        return explain(method, model, picture, seed=seed, **options)


def judge(
    method: str, model: NEM, images: Iterable[Array], seed: int, masks: float
) -> dict[str, float]:
    """The figures that need no ground truth, over the pictures (S, S, 3)."""
    backbone, rows, sure = model.backbone, [], []
    device = next(backbone.parameters()).device
    for number, picture in enumerate(images):
        found = run(method, model, picture, seed + number, masks)
        small = torch.from_numpy(resize(picture, (backbone.input_size,) * 2)[None])
        x = normalise(small.to(device), backbone.mean, backbone.std)
        shown = metrics.min_max(found.mask)
        score = class_and_embedding_score(backbone, x)
        sure.append(
            float(score(x, torch.zeros(1, dtype=torch.long, device=x.device))[0, 0]) >= SURE
        )
        areas = faithfulness(score, x, torch.from_numpy(shown), seed=seed)
        of_class, of_embedding = torch.stack(tuple(areas))[:, 0].T.tolist()
        rows.append(
            {
                **dict(zip(("insertion", "deletion", "faith"), of_class, strict=True)),
                "faith-emb": of_embedding[2],
                "entropy": float(metrics.entropy(shown)[0]),
                "gini": float(metrics.gini(shown)[0]),
                "area": float(shown.mean()),
                "forwards": float(found.forwards),
                "backwards": float(found.backwards),
                "ms": 1000 * found.seconds,
            }
        )
        progress(method, number + 1)
    means = {k: mean_of([r[k] for r in rows]) for k in rows[0]}
    for name, kind in (("sure", True), ("unsure", False)):
        part = [r["faith"] for r, is_sure in zip(rows, sure, strict=True) if is_sure is kind]
        means[f"faith-{name}"] = mean_of(part)
    # A method's first picture also loads its libraries.
    return means | {"ms": float(np.median([r["ms"] for r in rows]))}


def localise(
    method: str, model: NEM, marked: Iterable[Marked], seed: int, masks: float
) -> dict[str, float]:
    """The figures against objects, means over the pictures that have one."""
    rows = []
    for number, (picture, truth) in enumerate(marked):
        shown = metrics.min_max(run(method, model, picture, seed + number, masks).mask)[0]
        soft = resize(truth, (shown.shape[0], shown.shape[1])).astype(np.float32) / 255
        found = on_object(shown, soft)
        rows.append({"mass": found["mass"], "rank": found["rank"], "point": found["pointing"]})
        progress(f"{method}, objects", number + 1)
    return {k: mean_of([r[k] for r in rows]) for k in rows[0]}


def absent_share(model: NEM, images: Iterable[Labelled], seed: int) -> float:
    """Mean map of a class that is not in the picture over that of its true class.

    The absent class is drawn from those that are neither the label nor among the more probable
    fifth, as a picture may show more than its label says. A label that is no class of the model
    gives way to the decided class.
    """
    rng, there, absent = np.random.default_rng(seed), [], []
    names = model.backbone.classes
    for picture, label in images:
        scores = explain("nemt-target", model, picture).scores
        assert scores is not None
        order = np.argsort(-scores[0], kind="stable")
        true = names.index(label) if label in names else int(order[0])
        far = order[absent_from(len(order)) :]
        other = int(rng.choice(far[far != true] if (far != true).any() else order[order != true]))
        there.append(explain("nemt-target", model, picture, true).mask.mean())
        absent.append(explain("nemt-target", model, picture, other).mask.mean())
    return float(np.mean(absent) / np.mean(there))


def progress(what: str, done: int) -> None:
    """Now and then a line for who waits."""
    if done % 25 == 0:
        print(f"{what}: {done} pictures", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(description="Compare methods on the same pictures.")
    parser.add_argument("--data", type=Path, required=True, help="folder of <class>/<picture>")
    parser.add_argument("--coco", type=Path, help="folder in COCO's format, for localisation")
    parser.add_argument("--davis", type=Path, help="folder of <name>.mp4 and <name>.masks.tar")
    parser.add_argument("--every", type=count, default=10, help="DAVIS frames (default each 10th)")
    parser.add_argument("--model", default="nem-tiny", help="bundle (default nem-tiny)")
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated")
    parser.add_argument("--limit", type=count, default=300, help="of each set (default 300)")
    parser.add_argument(
        "--masks", type=float, default=1.0, help="share of RELAX's 3,000 and RISE's 1,000 masks"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    parser.add_argument(
        "--precision", choices=("32", "bf16"), default="32",
        help="of RELAX, RISE and the curves; bf16 takes half the time where the CPU computes in it",
    )  # fmt: skip
    parser.add_argument("--json", type=new_file, help="keep the figures here, and go on from them")
    args = parser.parse_args()
    if args.masks <= 0:
        parser.error(f"--masks {args.masks:g}: must be above 0")
    args.methods = [name for name in args.methods.split(",") if name]
    for name in args.methods:
        if name not in CONTROLS:
            check_method(name)
    return args


def fill(
    result: Result, model: NEM, images: list[Labelled], sets: dict[str, list[Marked]],
    args: argparse.Namespace,
) -> None:  # fmt: skip
    """Add the figures that are missing, and keep them as soon as they are there."""
    for name in args.methods:
        row = result["rows"].get(name, {})
        try:
            if "faith" not in row:
                row |= judge(name, model, (p for p, _ in images), args.seed, args.masks)
            for key, marked in sets.items():
                if f"mass-{key}" not in row:
                    found = localise(name, model, marked, args.seed, args.masks)
                    row |= {f"{k}-{key}": v for k, v in found.items()}
        except NemError as error:  # a head or a library that is not there
            result["left_out"][name] = str(error)
            save(args.json, result)
            print(f"{name}: left out: {error}", file=sys.stderr, flush=True)
            continue
        result["left_out"].pop(name, None)
        result["rows"][name] = row
        save(args.json, result)
        print(f"{name}: done", file=sys.stderr, flush=True)
    if "target" in model.aims and result["absent_over_true"] is None:
        result["absent_over_true"] = absent_share(model, images, args.seed)
        save(args.json, result)


def main() -> None:
    """Parse, run what is missing, print."""
    args = arguments()
    cv2.setNumThreads(1)
    bundle = open_bundle(args.model)
    asked = {k: getattr(args, k) for k in SETTINGS}
    folders = {k: str(p) if (p := getattr(args, k)) else None for k in ("data", "coco", "davis")}
    weights = bundle.manifest.files["weights.safetensors"]
    result = start(args.json, {**asked, **folders, "weights": weights})
    model = load_model(bundle).to(args.device, memory_format=torch.channels_last)
    size = model.backbone.input_size
    sets = {}
    if args.coco:
        sets["coco"] = coco_pictures(args.coco, size, args.limit)
    if args.davis:
        sets["davis"] = davis_frames(args.davis, size, args.every, args.limit)
    images = labelled(args.data, size, args.limit, args.seed)
    with torch.autocast(
        torch.device(args.device).type, torch.bfloat16, enabled=args.precision == "bf16"
    ):
        fill(result, model, images, sets, args)
    print_result(result)


if __name__ == "__main__":
    launch(main)

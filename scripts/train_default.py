"""Train the embedded default `nem-tiny`: backbone from scratch, tuned, decoder, export.

    python -m scripts.train_default --data ../shared/data --out runs/default

`--data` holds `objects-*.tar`, or `train/<class>/*` and `val/<class>/*`. Each stage keeps its
checkpoints under `--out` and goes on from there when it was cut short. `--start BUNDLE` takes the
backbone of a bundle in place of the first, long training; `--slim BUNDLE` cuts backbone and
decoder out of a larger one, which then teaches the backbone. The bundle lands in
`nem/bundles/nem-tiny` (or `--bundle`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from pathlib import Path

import cv2
import torch
from safetensors.torch import save_file
from torch import nn

from engines.export import save_bundle
from nem.backbone import Backbone, create_backbone
from nem.bundle import Bundle, open_bundle
from nem.bundle_io import decoder_state, installed_versions, load_backbone, round_weights_
from nem.explanation import AIMS, METHOD_OF
from nem.train import TrainConfig, fit
from scripts.default_backbone import BackboneConfig, top1, train_backbone
from scripts.default_card import model_card, weights_source
from scripts.default_data import MEAN, STD, load_split, write_composites
from scripts.default_quality import judge
from scripts.default_slim import cut_backbone, cut_decoder
from scripts.ending import launch

NAME = "nem-tiny"
METHODS = tuple(METHOD_OF[aim] for aim in AIMS)


def unpack(data: Path, out: Path) -> Path:
    """The folder with `train` and `val`: `data` itself, or its `objects-*.tar` unpacked once."""
    if (data / "train").is_dir():
        return data
    archives = sorted(data.glob("objects-*.tar"))
    if not archives:
        sys.exit(f"{data}: expected train/ and val/, or objects-*.tar; found neither")
    folder = out / "data"
    if not (folder / "unpacked").exists():
        for archive in archives:
            with tarfile.open(archive) as file:
                file.extractall(folder, filter="data")
        (folder / "unpacked").touch()
    return folder / "objects"


def frozen_backbone(
    model: nn.Module, config: BackboneConfig, names: list[str], size: int, path: Path
) -> Backbone:
    """The trained classifier as a frozen backbone, through the safetensors file at `path`."""
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return create_backbone(
        config.model,
        path,
        input_size=size,
        mean=MEAN,
        std=STD,
        classes=tuple(names),
        num_classes=len(names),
        **config.kwargs,
    )


def decoder_config(data: tuple[Path, ...], args: argparse.Namespace) -> TrainConfig:
    """All heads by the same `fit` as `nem-stream train`."""
    return TrainConfig(
        data=data,
        out=args.out / f"decoder-{args.input_size}-area-{args.area_weight:g}",
        methods=METHODS,
        hold=tuple(args.hold),
        ks=args.ks,
        stratified=True,
        grid=args.input_size // 4,  # the decoder draws no finer
        deletion_weight=args.deletion_weight,
        flip=True,
        decoder="lite",
        decoder_kwargs={"width": args.decoder_width},
        area_weight=args.area_weight,
        epochs=args.decoder_epochs,
        batch_size=32,
        accumulate=1,
        precision=args.precision,
        accelerator="gpu" if args.device.startswith("cuda") else "cpu",
        seed=args.seed,
        resume=True,
    )


def bundle_of_classes(option: str, name: str, classes: list[str]) -> Bundle:
    """The bundle that `option` names, which must have been trained on these classes."""
    bundle = open_bundle(name)
    if list(bundle.manifest.classes) != classes:
        sys.exit(f"{option} {name}: its classes are not those of the training pictures")
    return bundle


def parameters(module: nn.Module) -> float:
    """Parameters in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def command(args: argparse.Namespace) -> str:
    """The command with everything that decides the result, and no path of this machine."""
    decisive = ("slim", "start", "go_on", "hold", "epochs", "tune_epochs", "input_size",
                "composites", "area_weight", "ks", "deletion_weight", "decoder_epochs",
                "decoder_width", "precision", "seed")  # fmt: skip
    values = {name: getattr(args, name) for name in decisive}
    if args.slim is not None:
        values |= {"slim": Path(args.slim).name}
    if args.start is not None:
        values |= {"start": Path(args.start).name, "epochs": None}  # of a training left out
    values["hold"] = " ".join(args.hold) or None
    options = [
        f"--{k.replace('_', '-')}" + ("" if v is True else f" {v}")
        for k, v in values.items()
        if v is not None and v is not False
    ]
    return " ".join(["python -m scripts.train_default --data DATA", *options])


def main() -> None:
    """Parse, train, export."""
    parser = argparse.ArgumentParser(description="Train and export the embedded default bundle.")
    parser.add_argument("--data", type=Path, required=True, help="objects-*.tar or train/ and val/")
    parser.add_argument("--out", type=Path, default=Path("runs/default"), help="checkpoints")
    parser.add_argument("--bundle", type=Path, default=Path("nem/bundles") / NAME)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--input-size", type=int, default=160, help="side of the input in use")
    parser.add_argument(
        "--epochs",
        type=int,
        default=BackboneConfig.epochs,
        help="of the backbone; a change on resuming re-plans what is left of the schedule",
    )
    parser.add_argument(
        "--tune-epochs", type=int, default=8, help="of the second training; 0: none"
    )
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--start", help="bundle whose backbone replaces the first training")
    begin.add_argument("--slim", help="bundle that is cut to size, its backbone the teacher")
    parser.add_argument(
        "--go-on", action="store_true", help="the decoder begins with the weights of --start"
    )
    parser.add_argument(
        "--hold", nargs="+", choices=METHODS, default=[], metavar="METHOD",
        help="heads that keep the maps of --start while the others learn; needs --go-on",
    )  # fmt: skip
    parser.add_argument("--composites", type=int, default=8000, help="pictures for the decoder")
    parser.add_argument("--decoder-epochs", type=float, default=4.0)
    parser.add_argument("--area-weight", type=float, default=1.0, help="of the NEM-U loss")
    parser.add_argument("--ks", type=int, default=4, help="of Ra-NEM")
    parser.add_argument("--deletion-weight", type=float, default=0.0, help="of Ra-NEM")
    parser.add_argument("--decoder-width", type=int, default=64)
    parser.add_argument(
        "--precision", choices=("bf16", "32"), default="bf16", help="of the decoder"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="", help="anything about the run the card should say")
    args = parser.parse_args()
    if args.go_on and args.start is None:
        parser.error("--go-on: needs --start BUNDLE")
    if args.hold and not args.go_on:
        parser.error("--hold: needs --go-on, and a --start with all heads")
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = unpack(args.data, args.out)
    train = load_split(data / "train")
    validation = load_split(data / "val", train.names)
    composites = write_composites(
        train, args.out / "composites", args.composites, args.input_size, args.seed
    )
    decoder = decoder_config((data / "train", composites), args)  # refuses before hours are lost
    config = BackboneConfig(epochs=args.epochs, seed=args.seed)
    before = begin_with = teacher = None
    if args.start is not None:
        before = bundle_of_classes("--start", args.start, train.names)
        first = load_backbone(before).model
        begin_with = decoder_state(before) if args.go_on else None
    elif args.slim is not None:
        before = bundle_of_classes("--slim", args.slim, train.names)
        large = load_backbone(before)
        teacher = large.model
        cut = cut_backbone(teacher, config, len(train.names))
        stages = list(zip(large.channels[-len(cut.kept) :], cut.kept, strict=True))
        begin_with = cut_decoder(decoder_state(before), stages, args.decoder_width)
        first = train_backbone(
            train, validation, args.out, config.slimmed(), args.device,
            start=cut.state, teacher=teacher,
        )  # fmt: skip
    else:
        first = train_backbone(train, validation, args.out, config, args.device)
    classifier = train_backbone(
        train, validation, args.out / "tuned", config.tuned(args.tune_epochs), args.device,
        start=first.state_dict(), teacher=teacher,
    )  # fmt: skip
    sizes = sorted({128, 144, 160, 176, 192, 224, args.input_size})
    quality = {f"top1_{size}": round(top1(classifier, validation, size), 4) for size in sizes}
    print(json.dumps(quality), flush=True)
    backbone = frozen_backbone(
        classifier, config, train.names, args.input_size, args.out / "backbone_ema.safetensors"
    )
    model = fit(decoder, backbone=backbone, begin_with=begin_with, progress=sys.stderr.isatty())
    round_weights_(model)
    quality |= judge(model, validation.images)
    print(json.dumps(quality))
    training = {
        "command": command(args),
        "data": f"{len(train.images)} pictures, {args.composites} composites of them",
        "seed": args.seed,
        "note": args.note,
        "versions": installed_versions(),
    }
    card = model_card(
        name=NAME,
        backbone=config.model,
        backbone_params=parameters(backbone),
        decoder_params=parameters(model.decoder),
        classes=len(train.names),
        size=args.input_size,
        validation=len(validation.images),
        start=None if before is None else before.path.name,
        slim=args.slim is not None,
        tuned=args.tune_epochs > 0,
        training=training,
        quality=quality,
    )
    bundle = save_bundle(
        model,
        args.bundle,
        name=NAME,
        source=weights_source(before, args.slim is not None, args.tune_epochs > 0),
        training=training,
        quality=quality,
        card=card,
        overwrite=True,
    )
    print(f"{bundle.path}: written")


if __name__ == "__main__":
    launch(main)

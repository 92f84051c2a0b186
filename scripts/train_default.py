"""Train the embedded default `nem-tiny`: backbone from scratch, NEM-U decoder, export.

    python -m scripts.train_default --data ../shared/data --out runs/default

`--data` holds `objects-*.tar`, or `train/<class>/*` and `val/<class>/*`. Each stage keeps its
checkpoints under `--out` and goes on from there when it was cut short. The bundle lands in
`nem/bundles/nem-tiny` (or `--bundle`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from engines import resize
from engines.export import save_bundle
from nem.backbone import Backbone, create_backbone
from nem.bundle_io import installed_versions, round_weights_
from nem.gauge import Gauge, gauge
from nem.model import NEM
from nem.train import TrainConfig, fit
from scripts.default_backbone import BackboneConfig, train_backbone
from scripts.default_card import model_card
from scripts.default_data import MEAN, STD, load_split, normalise

NAME = "nem-tiny"


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
        channels=list(config.channels),
        stem_width=config.stem_width,
    )


def train_decoder(backbone: Backbone, data: Path, args: argparse.Namespace) -> NEM:
    """NEM-U by the same `fit` as `nem-stream train`."""
    config = TrainConfig(
        data=(data / "train",),
        out=args.out / f"decoder-{args.input_size}-area-{args.area_weight:g}",
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
    return fit(config, backbone=backbone, progress=sys.stderr.isatty())


def judge(model: NEM, images: list[np.ndarray], limit: int = 1000) -> dict[str, float]:
    """Mean gauge over `limit` pictures spread evenly over `images`."""
    backbone = model.backbone
    size, rows = (backbone.input_size, backbone.input_size), []
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, limit).astype(int)]
    generator = torch.Generator().manual_seed(0)
    for start in range(0, limit, 50):
        raw = np.stack([resize(im, size) for im in chosen[start : start + 50]])
        rows.append(gauge(model, normalise(torch.from_numpy(raw)), generator=generator))
    means = {k: torch.cat([getattr(r, k) for r in rows]).mean() for k in Gauge._fields}
    return {k: round(float(v), 4) for k, v in means.items()}


def parameters(module: nn.Module) -> float:
    """Parameters in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def command(args: argparse.Namespace) -> str:
    """The command with everything that decides the result, and no path of this machine."""
    decisive = ("epochs", "input_size", "area_weight", "decoder_epochs", "decoder_width",
                "precision", "seed")  # fmt: skip
    options = [f"--{name.replace('_', '-')} {getattr(args, name)}" for name in decisive]
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
    parser.add_argument("--decoder-epochs", type=float, default=4.0)
    parser.add_argument("--area-weight", type=float, default=1.0, help="of the NEM-U loss")
    parser.add_argument("--decoder-width", type=int, default=64)
    parser.add_argument(
        "--precision", choices=("bf16", "32"), default="bf16", help="of the decoder"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="", help="anything about the run the card should say")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = unpack(args.data, args.out)
    config = BackboneConfig(epochs=args.epochs, seed=args.seed)
    classifier, names, quality = train_backbone(data, args.out, config, args.device)
    backbone = frozen_backbone(
        classifier, config, names, args.input_size, args.out / "backbone_ema.safetensors"
    )
    model = train_decoder(backbone, data, args)
    validation, _, _ = load_split(data / "val")
    round_weights_(model)
    quality |= judge(model, validation)
    print(json.dumps(quality))
    training = {
        "command": command(args),
        "data": f"{sum(1 for _ in (data / 'train').glob('*/*'))} pictures",
        "seed": args.seed,
        "note": args.note,
        "versions": installed_versions(),
    }
    card = model_card(
        name=NAME,
        backbone=config.model,
        backbone_params=parameters(backbone),
        decoder_params=parameters(model.decoder),
        classes=len(names),
        size=args.input_size,
        validation=len(validation),
        training=training,
        quality=quality,
    )
    bundle = save_bundle(
        model,
        args.bundle,
        name=NAME,
        source="trained from scratch by scripts/train_default",
        training=training,
        quality=quality,
        card=card,
        overwrite=True,
    )
    print(f"{bundle.path}: written")


if __name__ == "__main__":
    main()

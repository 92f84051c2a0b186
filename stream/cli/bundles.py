"""`nem-stream bundles`: what there is, what one holds, whether it works."""

from __future__ import annotations

import numpy as np

from nem.bundle import Bundle, list_bundles, open_bundle
from stream.cli.console import show


def print_list() -> None:
    """Print one line per embedded bundle."""
    for name in list_bundles():
        bundle = open_bundle(name)
        show(f"{name:<12} {_summary(bundle)}")


def print_bundle(name: str) -> None:
    """Print what a bundle is and how it was made."""
    bundle = open_bundle(name)
    manifest = bundle.manifest
    classes = "; ".join(f"{number} {name}" for number, name in enumerate(manifest.classes))
    size = sum(path.stat().st_size for path in bundle.path.iterdir() if path.is_file())
    rows = {
        "name": manifest.name,
        "folder": str(bundle.path),
        "size": f"{size / 1e6:.1f} MB",
        "backbone": f"{manifest.backbone.name}, weights: {manifest.backbone.source}",
        "input": f"{manifest.input_size} x {manifest.input_size} pixels",
        "decoder": manifest.decoder.kind,
        "explains": f"{', '.join(manifest.heads)}; fill {manifest.fill}",
        "classes": f"{len(manifest.classes)}: {classes}" if classes else "none, or without names",
    }
    rows |= {f"quality: {key}": f"{value:.4g}" for key, value in manifest.quality.items()}
    rows |= {f"training: {key}": str(value) for key, value in manifest.training.items()}
    rows["card"] = str(bundle.card_path)
    width = max(map(len, rows))
    for key, value in rows.items():
        show(f"{key:<{width}}  {value}")


def check(name: str) -> None:
    """Check files and hashes, then run the graph once on a grey frame.

    Raises:
        BundleError: a file is missing, damaged, or of another version.
        EngineError: the graph doesn't run.
    """
    from engines import open_engine

    bundle = open_bundle(name)
    side = bundle.manifest.input_size
    with open_engine(bundle) as engine:
        mask = engine.run(np.full((1, side, side, 3), 128, np.uint8)).mask
        used = f"{engine.name} {engine.device} {engine.precision}"
    show(f"{bundle.path}: good; files as in its manifest, mask {mask.shape} on {used}")


def _summary(bundle: Bundle) -> str:
    manifest = bundle.manifest
    return (
        f"{manifest.backbone.name} + {manifest.decoder.kind}, {manifest.input_size} px, "
        f"{len(manifest.classes)} classes; explains {', '.join(manifest.heads)}"
    )

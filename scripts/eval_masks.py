"""Do the masks follow the object? Localisation, fidelity and steadiness on DAVIS sequences.

    python -m scripts.eval_masks ../shared/data/davis --sheet sheet.png --json masks.json
    python -m scripts.eval_masks ../shared/data/davis --explain class

Every frame of every `<sequence>.mp4` that has a `<sequence>.masks.tar` is explained by one of the
bundle's heads (`--explain`; "target" explains the most probable class). Per sequence:

* area: share of the picture the object covers;
* mass: share of the mask's sum that lies on the object (relevance mass accuracy); of a ranking the
  mask is each pixel's percentile;
* centre: the same for a Gaussian in the middle of the picture, the trivial guess;
* rank, pointing: share of the mask's largest values, as many as the object has pixels, and of the
  very largest, that lie on it (relevance rank accuracy, pointing game);
* entropy (nats), gini: how concentrated the mask is; mask_area: its mean;
* change, warped: mean absolute change from frame to frame, as it is and after the last mask was
  moved along by the optical flow;
* kept, moved, noise: cosine between the embedding of the frame and that of the frame seen through
  the mask, through the same mask moved elsewhere (cyclic shift by half the picture), and through
  the mask's own pixels in random order. Hidden pixels take the data mean, as in training.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import Engine, Explanation, open_engine, resize
from nem import metrics
from nem.bundle import Bundle, open_bundle
from nem.explanation import AIMS, Aim
from nem.video_metrics import mean_change, warped_error
from scripts.ending import count, launch, new_file
from stream.frame import Frame
from stream.overlay import Overlay
from stream.sources import open_source

Array = NDArray[np.float32]
COLUMNS = (
    "area", "mass", "centre", "rank", "pointing", "entropy", "gini", "mask_area", "change",
    "warped", "kept", "moved", "noise",
)  # fmt: skip


def object_masks(path: Path) -> list[NDArray[np.uint8]]:
    """The 1-bit PNGs of a `.masks.tar` in frame order, uint8 0 or 255, (H, W)."""
    with tarfile.open(path) as archive:
        members = sorted((m for m in archive if m.name.endswith(".png")), key=lambda m: m.name)
        files = [archive.extractfile(m) for m in members]
        raw = [np.frombuffer(f.read(), np.uint8) for f in files if isinstance(f, io.IOBase)]
    return [(cv2.imdecode(r, cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8) * 255 for r in raw]


def centre_gaussian(size: int, sigma: float = 0.25) -> Array:
    """A Gaussian in the middle, (size, size); `sigma` in picture sides."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    line = np.exp(-0.5 * (axis / sigma) ** 2)
    return np.outer(line, line)


def on_object(mask: Array, truth: Array) -> dict[str, float]:
    """Mass, rank and pointing of one mask; NaN without an object.

    Args:
        mask: (S, S).
        truth: share of each pixel that the object covers, (S, S) in [0, 1].
    """
    maps, soft = mask[None], truth[None]
    hard = soft >= 0.5
    return {
        "mass": float(metrics.relevance_mass(maps, soft)[0]),
        "rank": float(metrics.relevance_rank(maps, hard)[0]),
        "pointing": float(metrics.pointing_game(maps, hard)[0]),
    }


def mean_of(values: Sequence[float]) -> float:
    """Mean of those that are not NaN; NaN without one."""
    array = np.asarray(values, np.float64)
    array = array[~np.isnan(array)]
    return float(array.mean()) if array.size else float("nan")


def fidelity(
    engine: Engine, bundle: Bundle, picture: NDArray[np.uint8], mask: Array, full: Array, seed: int
) -> tuple[float, float, float]:
    """Cosines kept, moved, noise of the module's text, for one picture (S, S, 3)."""
    half = mask.shape[0] // 2
    noise = np.random.default_rng(seed).permutation(mask.ravel()).reshape(mask.shape)
    masks = np.stack([mask, np.roll(mask, (half, half), (0, 1)), noise])[..., None]
    fill = np.asarray(bundle.manifest.mean, np.float32) * 255
    seen = np.rint(masks * picture + (1 - masks) * fill).astype(np.uint8)
    parts = engine.run(seen).embedding
    norms = np.linalg.norm(parts, axis=1) * np.linalg.norm(full)
    kept, moved, shuffled = (parts @ full / np.maximum(norms, 1e-12)).tolist()
    return kept, moved, shuffled


def evaluate(
    engine: Engine, bundle: Bundle, clip: Path, every: int, aim: Aim | None = None
) -> tuple[dict[str, float], list[tuple[Frame, Explanation]]]:
    """Mean figures of one sequence, fidelity on each `every`-th frame, and two frames to show."""
    truth = object_masks(clip.with_suffix(".masks.tar"))
    rows: list[dict[str, float]] = []
    shown: list[tuple[Frame, Explanation]] = []
    masks, pictures = [], []
    with open_source(clip) as source:
        for frame in source:
            picture = frame.rgb(engine.input_size)
            explanation = engine.run(picture[None], explain=aim)
            mask = explanation.mask[0]
            masks.append(mask)
            pictures.append(picture)
            target = resize(truth[frame.index], mask.shape).astype(np.float32) / 255
            row = on_object(mask, target) | {
                "area": float(target.mean()),
                "centre": on_object(centre_gaussian(len(mask)), target)["mass"],
                "entropy": float(metrics.entropy(mask[None])[0]),
                "gini": float(metrics.gini(mask[None])[0]),
                "mask_area": float(mask.mean()),
            }
            if frame.index % every == 0:
                cosines = fidelity(
                    engine, bundle, picture, mask, explanation.embedding[0], frame.index
                )
                row |= dict(zip(("kept", "moved", "noise"), cosines, strict=True))
            rows.append(row)
            if frame.index in (len(truth) // 4, 3 * len(truth) // 4):
                shown.append((frame, explanation))
    values = {c: [r[c] for r in rows if c in r] for c in COLUMNS}
    values["change"] = mean_change(np.stack(masks)).tolist()
    values["warped"] = warped_error(np.stack(masks), np.stack(pictures)).tolist()
    return {c: mean_of(values[c]) for c in COLUMNS}, shown


def contact_sheet(tiles: list[tuple[Frame, Explanation]], columns: int = 4) -> NDArray[np.uint8]:
    """The frames with their masks drawn on, in a grid of 480x270 tiles, RGB."""
    draw = Overlay("heat")
    pictures = [resize(draw(*tile).rgb(), (270, 480)) for tile in tiles]
    blank = np.zeros_like(pictures[0])
    pictures += [blank] * (-len(pictures) % columns)
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return np.vstack(rows)


def main() -> None:
    """Parse, evaluate, print a table."""
    parser = argparse.ArgumentParser(description="Judge masks on videos with object masks.")
    parser.add_argument("data", type=Path, help="folder of <name>.mp4 and <name>.masks.tar")
    parser.add_argument("--model", default="nem-tiny", help="bundle (default nem-tiny)")
    parser.add_argument("--explain", choices=AIMS, help="which head (default: the bundle's first)")
    parser.add_argument("--every", type=count, default=5, help="fidelity on each n-th frame")
    parser.add_argument("--sheet", type=new_file, help="write a contact sheet PNG here")
    parser.add_argument("--json", type=new_file, help="write the figures here")
    args = parser.parse_args()
    clips = sorted(p for p in args.data.glob("*.mp4") if p.with_suffix(".masks.tar").exists())
    if not clips:
        parser.error(f"{args.data}: no <name>.mp4 with a <name>.masks.tar beside it")
    bundle = open_bundle(args.model)
    table: dict[str, dict[str, float]] = {}
    tiles: list[tuple[Frame, Explanation]] = []
    with open_engine(bundle) as engine:
        for clip in clips:
            table[clip.stem], shown = evaluate(engine, bundle, clip, args.every, args.explain)
            tiles += shown
    table["mean"] = {c: mean_of([r[c] for r in table.values()]) for c in COLUMNS}
    print(f"{'':16}" + "".join(f"{c:>10}" for c in COLUMNS))
    for name, row in table.items():
        print(f"{name:16}" + "".join(f"{row[c]:10.3f}" for c in COLUMNS))
    mean = table["mean"]
    print(
        f"mass / area {mean['mass'] / mean['area']:.2f}, centre / area "
        f"{mean['centre'] / mean['area']:.2f}, kept - moved {mean['kept'] - mean['moved']:.3f}, "
        f"kept - noise {mean['kept'] - mean['noise']:.3f}"
    )
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n")
    if args.sheet:
        args.sheet.write_bytes(cv2.imencode(".png", contact_sheet(tiles)[..., ::-1])[1].tobytes())


if __name__ == "__main__":
    launch(main)

"""The pictures of `eval_methods`, at the model's size: with their class, or with their objects."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines import resize
from nem.coco import open_coco
from nem.pictures import is_image, read_image
from scripts.eval_masks import object_masks
from stream.sources import open_source

Picture = NDArray[np.uint8]
Labelled = tuple[Picture, str]
"""RGB (S, S, 3), and the name of its folder."""
Marked = tuple[Picture, NDArray[np.uint8]]
"""RGB (S, S, 3), and 255 on its objects, 0 elsewhere, (H, W) of the whole picture."""


def labelled(folder: Path, size: int, limit: int, seed: int) -> list[Labelled]:
    """`limit` pictures of `<folder>/<class>/`, drawn by `seed`."""
    paths = sorted(p for p in folder.glob("*/*") if is_image(p))
    if not paths:
        sys.exit(f"{folder}: expected pictures in <class>/; found none")
    order = np.random.default_rng(seed).permutation(len(paths))[:limit]
    return [(resize(read_image(paths[i]), (size, size)), paths[i].parent.name) for i in order]


def coco_pictures(folder: Path, size: int, limit: int) -> list[Marked]:
    """The first `limit` pictures of a folder in COCO's format, with all of their objects."""
    return [
        (resize(p.pixels(), (size, size)), p.object_mask().astype(np.uint8) * 255)
        for p in open_coco(folder)[:limit]
    ]


def davis_frames(folder: Path, size: int, every: int, limit: int) -> list[Marked]:
    """Each `every`-th frame of all `<name>.mp4` that have a `<name>.masks.tar`, `limit` at most.

    Fewer are taken from all over the clips.
    """
    clips = sorted(p for p in folder.glob("*.mp4") if p.with_suffix(".masks.tar").exists())
    if not clips:
        sys.exit(f"{folder}: expected <name>.mp4 with <name>.masks.tar beside it; found none")
    found: list[Marked] = []
    for clip in clips:
        truth = object_masks(clip.with_suffix(".masks.tar"))
        with open_source(clip) as source:
            found += [
                (frame.rgb((size, size)), truth[frame.index])
                for frame in source
                if frame.index % every == 0
            ]
    chosen = np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int)
    return [found[i] for i in chosen]

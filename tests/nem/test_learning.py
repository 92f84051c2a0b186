"""NEM-U on a toy: a small classifier of shapes is trained, then explained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F

from nem.backbone import Backbone
from nem.config import TrainConfig, Variant
from nem.data import normalise
from nem.losses import Loss, nem_u_loss
from nem.masking import hide
from nem.metrics import relevance_mass
from nem.train import fit
from tests.nem.toys import SIZE, shapes, write_pictures

HALF, QUARTER = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """What is learnt in so few steps hangs on the last bits of sums, and they on the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def classifier(two_threads: None) -> Backbone:
    pictures, labels, _ = shapes(1024, 0)
    x, y = normalise(torch.from_numpy(pictures), HALF, QUARTER), torch.from_numpy(labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(
            "resnet10t", num_classes=4, channels=(16, 24, 32, 48), stem_width=8
        )
        optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
        for _ in range(80):
            pick = torch.randint(0, len(x), (64,))
            loss = F.cross_entropy(model(x[pick]), y[pick])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return Backbone(model, name="resnet10t", input_size=SIZE, mean=HALF, std=QUARTER)


def explain(classifier: Backbone, folder: Path, loss: Variant) -> tuple[Loss, float, float]:
    """Train a decoder; the loss's terms, mass inside the object and the object's area, unseen."""
    data = write_pictures(folder / "pictures", shapes(160, 0)[0])
    config = TrainConfig(
        data=(data,), out=folder / "out", batch_size=16, accumulate=1, epochs=8, loss=loss,
        decoder_kwargs={"width": 32}, accelerator="cpu",
    )  # fmt: skip
    model = fit(config, backbone=classifier, progress=False)
    pictures, _, truth = shapes(128, 1)
    x = normalise(torch.from_numpy(pictures), HALF, QUARTER)
    embed = model.backbone.embed
    with torch.no_grad():
        output = model(x)
        mask = output.mask
        terms = nem_u_loss(output.embedding, embed(hide(x, mask)), embed(hide(x, 1 - mask)), mask)
    return terms, float(relevance_mass(mask, truth).mean()), float(truth.mean())


def test_intent_masks_find_the_object_and_are_not_uniform_grey(
    classifier: Backbone, tmp_path: Path
) -> None:
    terms, mass, area = explain(classifier, tmp_path, "intent")
    assert terms.binarity.mean() < 0.5
    assert terms.kept.mean() > 0.7
    assert mass > 1.5 * area


def test_the_printed_sign_gives_masks_whose_rest_looks_the_same(
    classifier: Backbone, tmp_path: Path
) -> None:
    terms, _, _ = explain(classifier, tmp_path, "printed")
    assert terms.binarity.mean() > 0.5


def test_four_heads_learn_together(classifier: Backbone, tmp_path: Path) -> None:
    """Each finds the object; a class that is not there gets next to nothing."""
    data = write_pictures(tmp_path / "pictures", shapes(160, 0)[0])
    config = TrainConfig(
        data=(data,), out=tmp_path / "out", batch_size=16, accumulate=1, epochs=16, ks=3,
        methods=("nem-u", "nemt", "ra-nem", "nemt-target"), decoder_kwargs={"width": 32},
        accelerator="cpu",
    )  # fmt: skip
    model = fit(config, backbone=classifier, progress=False)
    pictures, _, truth = shapes(96, 1)
    x = normalise(torch.from_numpy(pictures), HALF, QUARTER)
    with torch.no_grad():
        order = classifier(x).logits.argsort(1, descending=True)
        there, absent = model(x, order[:, 0]).maps, model(x, order[:, -1]).maps
    assert tuple(there) == config.aims
    area = float(truth.mean())
    for aim in ("embedding", "class", "target"):
        assert relevance_mass(there[aim], truth).mean() > 1.5 * area, aim
        assert 0.02 < float(there[aim].mean()) < 0.6, aim
    inside, outside = (
        there["ranking"][torch.from_numpy(truth == side)[:, None]] for side in (1, 0)
    )
    assert inside.mean() > outside.mean() + there["ranking"].std() / 2
    assert absent["target"].mean() < 0.5 * there["target"].mean()
    lines = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert {"loss", "embedding_kept", "class_drop", "target_absent_area", "ranking_kept"} <= set(
        json.loads(lines[-1])
    )

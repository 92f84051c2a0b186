"""Options of the methods of classes, in short trainings of all heads."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from prodigyopt import Prodigy

import nem.learner
import nem.objectives
from nem.config import TrainConfig
from nem.data import Collection, normalise
from nem.errors import TrainError
from nem.explanation import AIM_OF, AIMS
from nem.learner import Learner
from nem.model import NEM
from nem.train import fit
from tests.nem.toys import SIZE, batch, shapes, tiny_backbone, write_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), shapes(21, 0)[0])


def calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[dict[str, Any]]:
    """The arguments of each call of `module.name` from here on."""
    function, seen = getattr(module, name), []
    signature = inspect.signature(function)

    def spy(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        seen.append(bound.arguments | {"autocast": torch.is_autocast_enabled("cpu")})
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, spy)
    return seen


def train_all(pictures: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Two steps of all four methods; nothing may break. The last line of the log."""
    config = TrainConfig(
        data=(pictures,), out=out, methods=tuple(AIM_OF), ks=2, batch_size=5, accumulate=1,
        max_steps=2, decoder_kwargs={"width": 8}, accelerator="cpu", pictures=5, **changes,
    )  # fmt: skip
    model = fit(config, backbone=tiny_backbone(), progress=False)
    (line,) = (json.loads(text) for text in (out / "log.jsonl").read_text().splitlines())
    assert line["steps"] == 2
    losses = ("loss", *(f"{aim}_loss" for aim in AIMS))
    assert all(math.isfinite(line[name]) for name in losses)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    with torch.no_grad():
        maps = model(batch()).maps
    assert tuple(maps) == model.aims == tuple(AIM_OF.values())
    for aim, value in maps.items():
        assert value.shape == (4, 1, SIZE, SIZE)
        assert torch.isfinite(value).all(), aim
    return line


def learner_of_all(**changes: Any) -> Learner:
    """A step of all four methods, without a trainer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NEM(tiny_backbone(), "lite", AIMS, width=8).train()
    settings = TrainConfig(data=("-",), out="-", methods=tuple(AIM_OF), ks=2, **changes)
    return Learner(model, Collection((), (), SIZE), settings, {})


def step(learner: Learner, count: int = 5) -> dict[str, torch.Tensor]:
    """The values of a step on `count` pictures."""
    pictures = torch.from_numpy(shapes(count, 0)[0])
    return learner(pictures, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("score", ["softmax", "logits"])
def test_logits_are_in_units_of_the_model_s_usual_lead(
    score: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = calls(monkeypatch, nem.learner, "aim_terms")
    scores = calls(monkeypatch, nem.objectives, "class_score")
    train_all(pictures, tmp_path, score=score)
    backbone = tiny_backbone()
    x = normalise(torch.from_numpy(shapes(21, 0)[0]), backbone.mean, backbone.std)
    with torch.no_grad():
        logits = backbone(x).logits
    lead = float((logits.amax(1) - logits.mean(1)).mean())
    assert abs(lead - 1) > 0.05  # else it could not be told from none
    unit = pytest.approx(lead, rel=1e-4) if score == "logits" else 1
    assert [call["unit"] for call in terms] == [unit] * 2
    # Ra-NEM's are probabilities whatever is asked for: two of them a step.
    asked = [(call["kind"], call["scale"]) for call in scores]
    assert len(asked) == 2 * (2 + 3 + 2)
    assert asked.count((score, unit)) == (14 if score == "softmax" else 2 * 5)
    assert score == "softmax" or asked.count(("softmax", 1)) == 2 * 2


@pytest.mark.parametrize(
    "changes",
    [{}, {"stratified": True}, {"detach_threshold": True}, {"grid": 8}, {"precision": "bf16"}],
    ids=str,
)
def test_options_reach_the_choice_of_pixels(
    changes: dict[str, Any], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = calls(monkeypatch, nem.objectives, "draw_counts")
    chosen = calls(monkeypatch, nem.objectives, "topk_mask")
    train_all(pictures, tmp_path, **changes)
    assert [call["stratified"] for call in drawn] == [changes.get("stratified", False)] * 2
    assert len(chosen) == 2 * 2
    for call in chosen:
        assert call["detach_threshold"] is changes.get("detach_threshold", False)
        assert call["grid"] == changes.get("grid")
        assert call["autocast"] == (changes.get("precision") == "bf16")


def test_a_deletion_weight_adds_the_score_of_the_rest(pictures: Path, tmp_path: Path) -> None:
    for weight in (0.0, 0.5):
        line = train_all(pictures, tmp_path / str(weight), deletion_weight=weight)
        assert ("ranking_rest" in line) == bool(weight)
        loss = -line["ranking_kept"] + weight * line.get("ranking_rest", 0)
        assert line["ranking_loss"] == pytest.approx(loss, abs=2e-5)  # of rounded figures


@pytest.mark.parametrize(
    "changes",
    [{}, {"score": "logits"}, {"detach_threshold": True}, {"deletion_weight": 0.5}, {"grid": 8}],
    ids=str,
)
def test_the_loss_of_a_step_reaches_all_of_the_decoder_and_only_that(
    changes: dict[str, Any],
) -> None:
    learner = learner_of_all(**changes)
    step(learner)["loss"].mean().backward()
    for name, parameter in learner.model.decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    assert all(p.grad is None for p in learner.model.backbone.parameters())


@pytest.mark.parametrize("flip", [True, False])
def test_half_of_the_pictures_are_mirrored_if_asked_for(
    flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = calls(monkeypatch, nem.learner, "aim_terms")
    learner = learner_of_all(flip=flip)
    with torch.no_grad():
        step(learner, 8)
    backbone = learner.model.backbone
    plain = normalise(torch.from_numpy(shapes(8, 0)[0]), backbone.mean, backbone.std)
    turned = [torch.equal(x, p.flip(2)) for x, p in zip(terms[0]["x"], plain, strict=True)]
    same = [torch.equal(x, p) for x, p in zip(terms[0]["x"], plain, strict=True)]
    assert same == [not t for t in turned]
    assert 2 <= sum(turned) <= 6 if flip else not any(turned)


@pytest.mark.parametrize("fill", ["mean", "noise"])
def test_what_hides_pixels_is_what_was_asked_for(
    fill: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = calls(monkeypatch, nem.objectives, "hide")
    with torch.no_grad():
        step(learner_of_all(fill=fill))
    assert [call["fill"] for call in hidden] == [fill] * 5  # of nem-u and nemt-target two each
    assert all(call["generator"] is not None for call in hidden)


def test_the_optimiser_is_set_as_asked_for() -> None:
    learner = learner_of_all(lr=0.5, weight_decay=0.25)
    learner.steps = 7
    chosen = learner.configure_optimizers()
    assert chosen["lr_scheduler"]["scheduler"].T_max == 7
    assert chosen["lr_scheduler"]["interval"] == "step"
    for optimiser in (
        chosen["optimizer"],
        learner_of_all(lr=0.5, weight_decay=0.25, cosine=False).configure_optimizers(),
    ):
        assert isinstance(optimiser, Prodigy)
        [group] = optimiser.param_groups
        assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
        assert group["safeguard_warmup"]


def test_a_grid_finer_than_the_picture_is_refused_before_anything_is_written(
    pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match=f"grid 128: allowed are 2 to {SIZE}"):
        train_all(pictures, tmp_path / "out", grid=128)
    assert not (tmp_path / "out").exists()


def test_each_batch_tells_of_the_same_values(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that share a training wait for one another at each."""
    told: list[list[str]] = []

    def step(self: Learner, batch: Any, batch_idx: int, own: Any = Learner.training_step) -> Any:
        told.append([])
        return own(self, batch, batch_idx)

    def loss(self: Learner, *given: Any, own: Any = Learner.forward) -> Any:
        values = own(self, *given)
        values["area"] = torch.full_like(values["area"], torch.nan)
        return values

    def log(self: Learner, name: str, *rest: Any, own: Any = Learner.log, **more: Any) -> None:
        told[-1].append(name)
        own(self, name, *rest, **more)

    monkeypatch.setattr(Learner, "training_step", step)
    monkeypatch.setattr(Learner, "forward", loss)
    monkeypatch.setattr(Learner, "log", log)
    config = TrainConfig(
        data=(pictures,), out=tmp_path / "out", batch_size=5, epochs=1, accelerator="cpu",
        decoder_kwargs={"width": 8},
    )  # fmt: skip
    fit(config, backbone=tiny_backbone(), progress=False)
    assert len(told) > 1
    assert all(names == told[0] for names in told)
    assert "area_epoch" in told[0]
    line = json.loads((tmp_path / "out" / "log.jsonl").read_text())
    assert "area" not in line
    assert line["kept"] > 0


def short(pictures: Path, out: Path, **changes: Any) -> TrainConfig:
    """Two epochs of four steps of NEM-U."""
    return TrainConfig(
        data=(pictures,), out=out, batch_size=5, accumulate=1, epochs=2, accelerator="cpu",
        decoder_kwargs={"width": 8}, **changes,
    )  # fmt: skip


def test_weights_order_and_noise_follow_the_seed_and_differ_between_epochs(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[Any]] = {"order": [], "noise": []}
    begun: list[torch.Tensor] = []

    def step(self: Learner, batch: Any, batch_idx: int, own: Any = Learner.training_step) -> Any:
        seen["order"].append(tuple(batch[1].tolist()))
        if self.global_step == 0:
            begun.append(self.model.decoder.context.weight.detach().clone())
        return own(self, batch, batch_idx)

    def forward(self: Learner, x: Any, generator: Any, own: Any = Learner.forward) -> Any:
        seen["noise"].append(generator.initial_seed())
        return own(self, x, generator)

    monkeypatch.setattr(Learner, "training_step", step)
    monkeypatch.setattr(Learner, "forward", forward)
    for run, seed in enumerate((0, 1)):  # neighbours share no epoch, either
        fit(short(pictures, tmp_path / str(run), seed=seed), backbone=tiny_backbone(),
            progress=False)  # fmt: skip
    assert not torch.equal(*begun)
    for values in seen.values():
        assert len(values) == 2 * 8
        assert len(set(values)) == 2 * 8


def test_figures_of_the_log_are_means_of_those_there_are(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(self: Learner, *given: Any, own: Any = Learner.forward) -> Any:
        area = torch.tensor([torch.nan, 0.5, 0.25, torch.nan, 0.75])
        return own(self, *given) | {"area": area}

    monkeypatch.setattr(Learner, "forward", loss)
    fit(short(pictures, tmp_path), backbone=tiny_backbone(), progress=False)
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        assert json.loads(line)["area"] == 0.5

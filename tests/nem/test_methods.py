"""One contract for all methods, trained and slow."""

from __future__ import annotations

import copy
import importlib.util
import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nem.activations import activation_statistics
from nem.bundle_io import state_sha256
from nem.errors import ArgumentError, MethodError
from nem.explanation import AIM_OF, AIMS
from nem.methods import METHODS, _shown, explain, method_names
from nem.model import NEM
from nem.ranks import percentiles
from nem.stages import layout_of, stage_names
from tests.nem.toys import SIZE, batch, shapes, tiny_backbone, tiny_nem

PICTURES = shapes(2, 3)[0]
FEW = ("relax", "u-relax", "umt-relax", "rise")
CAPTUM = (
    "saliency", "integrated-gradients", "gradient-shap", "smoothgrad", "guided-backprop", "forgrad"
)  # fmt: skip
NEEDS = dict.fromkeys(("grad-cam", "grad-cam++"), "pytorch_grad_cam") | dict.fromkeys(
    CAPTUM, "captum"
)
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"masks": 24} for name in FEW},
    "extremal": {"steps": 3},
    "integrated-gradients": {"steps": 6},
    "gradient-shap": {"samples": 4},
    "smoothgrad": {"samples": 4},
    "iba": {"statistics": batch(24, seed=9), "steps": 2, "samples": 3},
}
# Takes either, and without a target explains this.
OF_CLASS = ("grad-cam", "grad-cam++", "iba")
EITHER = [name for name, method in METHODS.items() if method.of == "either"]

methods = pytest.mark.parametrize("method", method_names())


@pytest.fixture(scope="module")
def model() -> NEM:
    return tiny_nem(aims=AIMS)


@pytest.fixture(autouse=True)
def _has_its_library(request: pytest.FixtureRequest) -> None:
    method = getattr(request.node, "callspec", None) and request.node.callspec.params.get("method")
    library = NEEDS.get(method or "")
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"{method} needs {library}, of the extra eval")


@methods
def test_a_map_per_picture_and_the_model_as_it_was(method: str, model: NEM) -> None:
    before = state_sha256(model.state_dict())
    found = explain(method, model, PICTURES, **OPTIONS.get(method, {}))
    assert found.method == method
    assert found.mask.shape == found.raw.shape == (2, SIZE, SIZE)
    assert found.mask.dtype == np.float32
    assert np.isfinite(found.raw).all()
    assert 0 <= found.mask.min() <= found.mask.max() <= 1
    assert found.embedding.shape == (2, 24)
    assert found.scores.shape == (2, 5)
    assert found.forwards >= 1
    assert state_sha256(model.state_dict()) == before
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.backbone.parameters())
    explains_a_class = method in AIM_OF and method != "nem-u"
    explains_a_class |= method in METHODS and METHODS[method].of == "class"
    explains_a_class |= method in OF_CLASS
    best = found.scores.argmax(1)
    assert np.array_equal(found.target, best) if explains_a_class else found.target is None


@methods
def test_the_same_seed_gives_the_same_map_and_torch_s_own_chance_is_left_alone(
    method: str, model: NEM
) -> None:
    options = OPTIONS.get(method, {})
    torch.manual_seed(1)
    one = explain(method, model, PICTURES, seed=4, **options)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    other = explain(method, model, PICTURES, seed=4, **options)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    np.testing.assert_allclose(one.raw, other.raw, rtol=1e-5, atol=1e-6)


@methods
def test_a_caller_without_gradients_gets_the_same(method: str, model: NEM) -> None:
    options = OPTIONS.get(method, {})
    one = explain(method, model, PICTURES[:1], **options)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            other = explain(method, model, PICTURES[:1], **options)
            assert not torch.is_grad_enabled()
        np.testing.assert_array_equal(one.raw, other.raw)


@methods
def test_little_memory_gives_the_same_map(method: str, model: NEM) -> None:
    options = OPTIONS.get(method, {})
    one = explain(method, model, PICTURES, memory_mb=1, **options).raw
    other = explain(method, model, PICTURES, memory_mb=512, **options).raw
    # Not pixel by pixel: a ReLU near 0 may open or close with the last bit of a sum.
    assert np.abs(one - other).mean() <= 0.05 * np.abs(other).mean()


@methods
def test_a_batch_is_its_pictures_one_by_one(method: str, model: NEM) -> None:
    options = OPTIONS.get(method, {})
    whole = explain(method, model, PICTURES, **options)
    for i, picture in enumerate(PICTURES):
        one = explain(method, model, picture, **options)
        assert np.abs(one.raw[0] - whole.raw[i]).mean() <= 0.05 * np.abs(whole.raw[i]).mean()
        np.testing.assert_allclose(one.scores[0], whole.scores[i], atol=1e-5)
        np.testing.assert_allclose(one.embedding[0], whole.embedding[i], atol=1e-4)


@methods
def test_runs_of_the_backbone_are_counted(method: str, model: NEM) -> None:
    """Forwards at the last stage, gradients at the pooling after it: all that run come by."""
    options = dict(OPTIONS.get(method, {}))
    if method == "iba":  # what is normal has to be known before
        options["statistics"] = activation_statistics(model.backbone, options["statistics"])
    assert all(layout_of(model.backbone, s) for s in stage_names(model.backbone))  # runs but once
    runs: list[int] = []
    gradients: list[int] = []

    def pooled(module: nn.Module, args: Any, out: Tensor) -> None:
        if out.requires_grad:
            out.register_hook(lambda gradient: gradients.append(len(gradient)))

    inner = model.backbone.model
    hooks = [
        inner.layer4.register_forward_hook(lambda module, args, out: runs.append(len(out))),
        inner.global_pool.register_forward_hook(pooled),
    ]
    found = explain(method, model, PICTURES, **options)
    for hook in hooks:
        hook.remove()
    clean = 0 if method in AIM_OF else 1  # for scores and embedding, no part of the method
    assert sum(runs) == len(PICTURES) * (found.forwards + clean)
    assert sum(gradients) == len(PICTURES) * found.backwards


@methods
def test_a_model_in_training_is_explained_as_in_use(method: str, model: NEM) -> None:
    options = OPTIONS.get(method, {})
    used = explain(method, model, PICTURES, **options)
    training = copy.deepcopy(model).train()
    before = state_sha256(training.state_dict())
    found = explain(method, training, PICTURES, **options)
    np.testing.assert_allclose(found.raw, used.raw, rtol=1e-4, atol=1e-6)
    assert training.training
    assert training.decoder.training
    assert state_sha256(training.state_dict()) == before


@pytest.mark.parametrize("method", EITHER)
def test_the_embedding_or_a_class_is_explained(method: str, model: NEM) -> None:
    options = OPTIONS.get(method, {})
    usual = explain(method, model, PICTURES, **options)
    other = "embedding" if method in OF_CLASS else "class"
    asked = explain(method, model, PICTURES, of=other, **options)
    assert (usual.target is None) == (method not in OF_CLASS)
    assert (asked.target is None) == (method in OF_CLASS)
    assert not np.array_equal(usual.raw, asked.raw)
    by_target = explain(method, model, PICTURES, [-1, 0], **options)
    assert by_target.target.tolist() == [by_target.scores[0].argmax(), 0]
    with pytest.raises(MethodError, match="explains the embedding: leave out target 1"):
        explain(method, model, PICTURES, 1, of="embedding", **options)
    if method not in OF_CLASS:  # no classes are needed
        bare = explain(method, tiny_backbone(num_classes=0), PICTURES[:1], **options)
        assert bare.scores is None
        assert bare.names == ()


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].of != "embedding"])
def test_a_class_can_be_asked_for_by_name(method: str) -> None:
    model = tiny_nem(aims=AIMS)
    model.backbone.classes = ("cat", "dog", "cow", "owl", "fox")
    options = OPTIONS.get(method, {})
    by_name = explain(method, model, PICTURES, "cow", **options)
    by_number = explain(method, model, PICTURES, [2, np.int64(2)], **options)
    assert by_name.target.tolist() == [2, 2]
    np.testing.assert_allclose(by_name.raw, by_number.raw, rtol=1e-5, atol=1e-6)
    with pytest.raises(MethodError, match="nearest: cow"):
        explain(method, model, PICTURES, "cowe", **options)


def test_what_can_not_be_explained_is_refused(model: NEM) -> None:
    for method, kwargs, error, reason in (
        ("gradcam", {}, MethodError, "did you mean grad-cam"),
        ("nem-u", {"target": 1}, MethodError, "explains the embedding: leave out target"),
        ("relax", {"target": 1}, MethodError, "explains the embedding: leave out target"),
        ("nemt", {"target": 1}, MethodError, "explains the decided class"),
        ("cam", {"target": 5}, MethodError, "give 0 to 4"),
        ("cam", {"target": [0, 1, 2]}, MethodError, r"shape \(3,\) for 2 pictures"),
        ("cam", {"target": -2}, MethodError, "give 0 to 4"),
        ("cam", {"target": True}, MethodError, "expected a class name or number"),
        ("nemt-target", {"target": "class"}, MethodError, "nearest: class 0|class 1|class 2"),
        ("rise", {"keep": 2.0}, ArgumentError, "keep 2.0"),
        ("relax", {"mask": 3}, MethodError, "no option mask; it has grid, keep, masks"),
        ("nem-u", {"masks": 3}, MethodError, "takes no masks"),
    ):
        with pytest.raises(error, match=reason):
            explain(method, model, PICTURES, **kwargs)
    with pytest.raises(MethodError, match=r"no head for it \(it has: embedding\)"):
        explain("nemt", tiny_nem(), PICTURES)
    with pytest.raises(MethodError, match="has no classes"):
        explain("cam", tiny_backbone(num_classes=0), PICTURES, 1)
    with pytest.raises(ArgumentError, match="expected RGB uint8"):
        explain("nem-u", model, PICTURES.astype(np.float32))
    with pytest.raises(ArgumentError, match="expected a NEM or a Backbone, got Linear; make one"):
        explain("relax", torch.nn.Linear(2, 2), PICTURES)
    with pytest.raises(MethodError, match="method 3: there is none; allowed: nem-u"):
        explain(3, model, PICTURES)


def test_a_single_picture_of_any_size(model: NEM) -> None:
    picture = np.repeat(PICTURES[0], 2, axis=0)
    assert explain("nem-u", model, picture).mask.shape == (1, SIZE, SIZE)


def test_a_class_is_found_in_any_case_if_only_one_is_so_called(model: NEM) -> None:
    model = copy.deepcopy(model)
    model.backbone.classes = ("cat", "Dog", "cow", "owl", "OWL")
    for asked, number in (("CAT", 0), ("dog", 1), ("owl", 3), ("OWL", 4), ("2", 2)):
        assert explain("nemt-target", model, PICTURES, asked).target.tolist() == [number] * 2
    with pytest.raises(MethodError, match="'Owl': 2 classes are called so; give a number: 3, 4"):
        explain("nemt-target", model, PICTURES, "Owl")


def test_an_option_may_be_called_as_an_argument_of_explain(model: NEM) -> None:
    pytest.importorskip("captum")
    one = explain("forgrad", model, PICTURES, method="guided_backprop")
    assert not np.array_equal(one.raw, explain("forgrad", model, PICTURES).raw)


def test_the_rank_of_a_map_is_its_mask_and_other_maps_are_stretched(model: NEM) -> None:
    ranked = explain("ra-nem", model, PICTURES)
    np.testing.assert_array_equal(ranked.mask, percentiles(ranked.raw))
    signed = explain("cam", model, PICTURES)
    positive = signed.raw.clip(0)
    low, high = (f(axis=(1, 2), keepdims=True) for f in (positive.min, positive.max))
    np.testing.assert_allclose(signed.mask, (positive - low) / (high - low), atol=1e-6)
    assert signed.mask.max(axis=(1, 2)).tolist() == [1, 1]
    # All of this model's maps have one sign.
    maps = np.float32([[-3, 0, 1, 2], [-1, -2, -3, -4], [1, 2, 3, 5]]).reshape(3, 2, 2)
    wanted = [[0, 0, 0.5, 1], [0] * 4, [0, 0.25, 0.5, 1]]
    assert _shown("cam", maps).reshape(3, 4).tolist() == wanted


def test_what_differs_by_rounding_alone_is_flat() -> None:
    """An embedding that nothing changes: cosines of 1 but for the last bit."""
    model = tiny_nem(aims=AIMS)
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.zero_()
        model.backbone.model.layer4[-1].bn2.bias.fill_(0.3)
    for method in ("relax", "extremal", "rise"):
        found = explain(method, model, PICTURES, **OPTIONS[method])
        assert found.raw.min() > 0.04
        assert np.array_equal(found.mask, np.zeros_like(found.mask))


def test_a_model_that_gives_no_numbers_is_refused() -> None:
    model = tiny_nem(aims=AIMS)
    with torch.no_grad():
        model.backbone.model.fc.weight.fill_(float("nan"))
    with pytest.raises(MethodError, match="not finite"):
        explain("cam", model, PICTURES)


def test_every_method_is_where_the_table_says() -> None:
    for name, entry in METHODS.items():
        parameters = inspect.signature(
            getattr(importlib.import_module(entry.module), entry.function)
        ).parameters
        assert list(parameters)[:3] == ["backbone", "x", "target"], name
        assert {"seed", "memory_mb"} <= parameters.keys(), name
        assert ("of" in parameters) == (entry.of == "either"), name


def test_a_flat_map_stays_empty_and_finite() -> None:
    model = tiny_nem(aims=AIMS)
    with torch.no_grad():
        model.backbone.model.fc.weight.zero_()
    found = explain("cam", model, PICTURES)
    assert np.array_equal(found.mask, np.zeros_like(found.mask))

import pytest
import torch

from nem.explanation import AIMS, Aim
from nem.model import NEM
from tests.nem.toys import FAMILIES, SIZE, batch, tiny_nem

cases = pytest.mark.parametrize(
    ("family", "kind"), [(f, "lite") for f in FAMILIES] + [("resnet", "paper"), ("vit", "paper")]
)


@cases
def test_output(family: str, kind: str) -> None:
    model, x = tiny_nem(family, kind, aims=AIMS), batch()
    with torch.no_grad():
        output = model(x)
        torch.testing.assert_close(model.mask_logits(x).sigmoid(), output.mask)
    assert tuple(output.maps) == AIMS
    assert output.mask is output.maps["embedding"]
    for aim, value in output.maps.items():
        assert value.shape == (4, 1, SIZE, SIZE)
        assert torch.isfinite(value).all()
        assert value.std() > 0
        assert aim == "ranking" or 0 <= value.min() <= value.max() <= 1
    torch.testing.assert_close(output.logits, model.backbone.model(x))
    torch.testing.assert_close(output.embedding, model.backbone.embed(x))


@cases
def test_a_batch_is_its_pictures(family: str, kind: str) -> None:
    model, x = tiny_nem(family, kind, aims=AIMS), batch()
    target = torch.tensor([3, -1, 0, 4])
    with torch.no_grad():
        together = model(x, target)
        apart = [model(x[i : i + 1], target[i : i + 1]) for i in range(len(x))]
    for aim, value in together.maps.items():
        single = torch.cat([output.maps[aim] for output in apart])
        torch.testing.assert_close(value, single, rtol=1e-4, atol=1e-5, msg=aim)
    for name in ("logits", "embedding"):
        single = torch.cat([getattr(output, name) for output in apart])
        torch.testing.assert_close(getattr(together, name), single, rtol=1e-4, atol=1e-5)


def test_only_the_target_head_answers_to_the_target() -> None:
    model, x = tiny_nem(aims=AIMS), batch()
    best = model(x).logits.argmax(1)
    with torch.no_grad():
        model.decoder.target.modulate.weight.normal_(0, 0.5)
        asked, other = model(x, best), model(x, (best + 1) % 5)
        unasked, below = model(x), model(x, torch.full((4,), -1))
    for aim in ("embedding", "class", "ranking"):
        assert torch.equal(asked.maps[aim], other.maps[aim])
    for output in (unasked, below):
        assert torch.equal(asked.maps["target"], output.maps["target"])
    assert not torch.allclose(asked.maps["target"], other.maps["target"])


@pytest.mark.parametrize("way", ["filter", "modulate"])
def test_the_asked_class_reaches_its_head_both_ways(way: str) -> None:
    model, x = tiny_nem(aims=AIMS), batch()
    for name in {"filter", "modulate"} - {way}:
        torch.nn.init.zeros_(getattr(model.decoder.target, name).weight)
    with torch.no_grad():
        getattr(model.decoder.target, way).weight.normal_(0, 0.5)
        one, other = (model(x, torch.full((4,), number)).maps["target"] for number in (1, 3))
    assert not torch.allclose(one, other, atol=1e-3)


@cases
def test_pictures_of_a_batch_do_not_touch_each_other(family: str, kind: str) -> None:
    model, x = tiny_nem(family, kind, aims=AIMS), batch()
    changed = x.clone()
    changed[1:] = 5 * batch(3, seed=9)
    with torch.no_grad():
        before, after = model(x).maps, model(changed).maps
    for aim in AIMS:
        assert torch.equal(before[aim][0], after[aim][0]), aim
        assert not torch.allclose(before[aim][1:], after[aim][1:], atol=1e-3), aim


def test_class_masks_are_smoothed_at_random_in_training_only() -> None:
    model, x = tiny_nem(aims=AIMS), batch()

    def maps(seed: int) -> dict[Aim, torch.Tensor]:
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            return model.explain(model.backbone(x), x, generator=generator).maps

    for training in (False, True):
        model.train(training)
        one, same, other = maps(0), maps(0), maps(1)
        for aim in AIMS:
            assert torch.equal(one[aim], same[aim]), aim
            drawn = training and aim in ("class", "target")
            assert torch.equal(one[aim], other[aim]) is not drawn, aim


def test_one_pass_runs_the_backbone_once() -> None:
    model = tiny_nem(aims=AIMS)
    calls = []
    model.backbone.model.conv1.register_forward_hook(lambda *_: calls.append(1))
    model(batch())
    assert len(calls) == 1


def test_exports_with_a_dynamic_batch() -> None:
    """The other decoder, on a CNN, is what the tests of engines export."""
    model = tiny_nem("vit", "paper", aims=AIMS)
    batch_size = torch.export.Dim("n", min=1, max=64)
    program = torch.export.export(
        model, (batch(2),), dynamic_shapes=({0: batch_size},), strict=False
    )
    with torch.no_grad():
        for n in (1, 3):
            exported, eager = program.module()(batch(n)), model(batch(n))
            for aim, value in eager.maps.items():
                torch.testing.assert_close(exported.maps[aim], value, rtol=1e-4, atol=1e-5)


def test_without_classes_there_are_no_logits() -> None:
    from tests.nem.toys import tiny_backbone

    assert NEM(tiny_backbone(num_classes=0), "lite").eval()(batch()).logits is None

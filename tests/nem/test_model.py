import pytest
import torch

from nem.model import NEM
from tests.nem.toys import FAMILIES, SIZE, batch, tiny_nem

cases = pytest.mark.parametrize(
    ("family", "kind"), [(f, "lite") for f in FAMILIES] + [("resnet", "paper"), ("vit", "paper")]
)


@cases
def test_output(family: str, kind: str) -> None:
    model, x = tiny_nem(family, kind), batch()
    with torch.no_grad():
        mask, logits, embedding = model(x)
        torch.testing.assert_close(model.mask_logits(x).sigmoid(), mask)
    assert mask.shape == (4, 1, SIZE, SIZE)
    assert torch.isfinite(mask).all()
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert mask.std() > 0
    torch.testing.assert_close(logits, model.backbone.model(x))
    torch.testing.assert_close(embedding, model.backbone.embed(x))


@cases
def test_a_batch_is_its_pictures(family: str, kind: str) -> None:
    model, x = tiny_nem(family, kind), batch()
    with torch.no_grad():
        together = model(x)
        apart = [model(x[i : i + 1]) for i in range(len(x))]
    for name, value in together._asdict().items():
        single = torch.cat([getattr(output, name) for output in apart])
        torch.testing.assert_close(value, single, rtol=1e-4, atol=1e-5, msg=name)


def test_pictures_of_a_batch_do_not_touch_each_other() -> None:
    model, x = tiny_nem(), batch()
    changed = x.clone()
    changed[1:] = 5 * batch(3, seed=9)
    with torch.no_grad():
        assert torch.equal(model(x).mask[0], model(changed).mask[0])
        assert not torch.equal(model(x).mask[1], model(changed).mask[1])


def test_one_pass_runs_the_backbone_once() -> None:
    model = tiny_nem()
    calls = []
    model.backbone.model.conv1.register_forward_hook(lambda *_: calls.append(1))
    model(batch())
    assert len(calls) == 1


@pytest.mark.parametrize(("family", "kind"), [("resnet", "lite"), ("vit", "paper")])
def test_exports_with_a_dynamic_batch(family: str, kind: str) -> None:
    model = tiny_nem(family, kind)
    batch_size = torch.export.Dim("n", min=1, max=64)
    program = torch.export.export(
        model, (batch(2),), dynamic_shapes=({0: batch_size},), strict=False
    )
    with torch.no_grad():
        for n in (1, 3):
            exported, eager = program.module()(batch(n)), model(batch(n))
            torch.testing.assert_close(exported[0], eager.mask, rtol=1e-4, atol=1e-5)


def test_without_classes_there_are_no_logits() -> None:
    from tests.nem.toys import tiny_backbone

    assert NEM(tiny_backbone(num_classes=0), "lite").eval()(batch()).logits is None

import numpy as np
import pytest
import torch

from nem.data import normalise
from nem.gauge import gauge, gauge_picture
from nem.masking import hide, random_like
from nem.pictures import squash
from tests.nem.toys import SIZE, batch, tiny_nem


def test_the_whole_picture_is_exactly_one() -> None:
    x = batch()
    for family in ("resnet", "vit"):
        full = gauge(tiny_nem(family), x, torch.ones(4, 1, 64, 64))
        assert (full.kept == 1).all()
        assert (full.control == 1).all()
        assert (full.area == 1).all()
        assert (full.complement < 1).all()


def test_values_are_cosines_of_embeddings() -> None:
    model, x = tiny_nem(), batch()
    mask = torch.rand(4, 1, 64, 64, generator=torch.manual_seed(0))
    result = gauge(model, x, mask, generator=torch.Generator().manual_seed(0))
    embed, cosine = model.backbone.embed, torch.nn.functional.cosine_similarity
    torch.testing.assert_close(result.kept, cosine(embed(x), embed(hide(x, mask))))
    torch.testing.assert_close(result.complement, cosine(embed(x), embed(hide(x, 1 - mask))))
    torch.testing.assert_close(result.area, mask.mean((1, 2, 3)))
    control = random_like(mask, torch.Generator().manual_seed(0))
    torch.testing.assert_close(result.control, cosine(embed(x), embed(hide(x, control))))
    again = gauge(model, x, mask, generator=torch.Generator().manual_seed(0))
    assert torch.equal(result.control, again.control)


def test_the_model_s_own_mask_is_the_default() -> None:
    model, x = tiny_nem(), batch()
    with torch.no_grad():
        mask = model(x).mask
    assert torch.equal(gauge(model, x).kept, gauge(model, x, mask).kept)
    assert torch.equal(gauge(model, x).area, mask.mean((1, 2, 3)))


def test_a_model_that_sees_nothing_scores_zero_not_nan() -> None:
    model = tiny_nem()
    model.backbone.embed = lambda x: torch.zeros(len(x), 8)  # type: ignore[method-assign]
    result = gauge(model, batch())
    assert (result.kept == 0).all()


def test_one_picture_of_any_size_and_its_mask() -> None:
    model = tiny_nem()
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    whole = gauge_picture(model, picture, np.ones((SIZE, SIZE), np.float32))
    assert whole["kept"] == 1
    assert whole["area"] == 1
    left = np.zeros((SIZE, SIZE), np.float32)
    left[:, : SIZE // 2] = 1
    half = gauge_picture(model, picture, left)
    assert half["kept"] < 1
    assert half["area"] == 0.5


def test_one_picture_tells_of_its_class_alone_and_hides_as_asked() -> None:
    model, backbone = tiny_nem(), tiny_nem().backbone
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    left = np.zeros((SIZE, SIZE), np.float32)
    left[:, : SIZE // 2] = 1
    mean = gauge_picture(model, picture, left, 2)
    x = normalise(torch.from_numpy(squash(picture, SIZE)[None]), backbone.mean, backbone.std)
    alone = backbone(hide(x, torch.from_numpy(left[None, None]))).logits.softmax(1)[0, 2]
    assert mean["alone"] == pytest.approx(float(alone), abs=1e-6)
    noise, again, other = (
        gauge_picture(model, picture, left, 2, fill="noise", seed=seed) for seed in (0, 0, 1)
    )
    assert noise == again
    for name in ("kept", "complement", "control", "alone"):
        assert len({mean[name], noise[name], other[name]}) == 3, name
    assert "alone" not in gauge_picture(model, picture, left)

from dataclasses import replace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from nem.data import normalise  # noqa: E402
from nem.errors import DataError, ModelError, TrainError  # noqa: E402
from nem.pictures import read_image, squash  # noqa: E402
from scripts.default_backbone import (  # noqa: E402
    BackboneConfig,
    batches,
    mix,
    top1,
    train_backbone,
)
from scripts.default_data import (  # noqa: E402
    MEAN,
    STD,
    blob_mask,
    clutter_of,
    load_split,
    on_clutter,
    random_crop,
    write_composites,
)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(5):
            image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), image)
    return tmp_path


def test_classes_are_the_folders_in_order(folder):
    split = load_split(folder)
    assert split.names == ["cat", "dog"]
    assert split.labels.tolist() == [0] * 5 + [1] * 5
    assert split.images[0].shape == (40, 60, 3)


def test_a_class_without_pictures_to_judge_by_shifts_no_label(folder, tmp_path):
    split = load_split(folder, ["ant", "cat", "dog"])
    assert split.labels.tolist() == [1] * 5 + [2] * 5
    with pytest.raises(DataError, match="dog is no class of the training part"):
        load_split(folder, ["cat"])
    for nothing in (tmp_path / "cat", tmp_path / "nowhere"):
        with pytest.raises(DataError, match="found none"):
            load_split(nothing)


def test_other_pictures_names_or_labels_have_another_digest(folder):
    before = load_split(folder).digest
    assert load_split(folder).digest == before
    assert load_split(folder, ["ant", "cat", "dog"]).digest != before
    (folder / "cat" / "0.png").rename(folder / "dog" / "0 again.png")
    moved = load_split(folder).digest
    (folder / "dog" / "0 again.png").unlink()
    assert len({before, moved, load_split(folder).digest}) == 3


def test_an_epoch_is_the_same_for_the_same_seed_and_differs_between_epochs(folder):
    images, labels, names, _ = load_split(folder)
    config = BackboneConfig(batch_size=4, phases=((1.0, 32),))
    first = [list(batches(images, labels, len(names), config, epoch)) for epoch in (0, 0, 1)]
    assert len(first[0]) == 2
    assert all(torch.equal(a, b) for a, b in zip(first[0][0], first[1][0], strict=True))
    assert not torch.equal(first[0][0][0], first[2][0][0])
    x, target = first[0][0]
    assert x.shape == (4, 3, 32, 32)
    assert torch.allclose(target.sum(1), torch.ones(4))


def test_crops_have_the_size_and_cover_different_parts():
    image = np.arange(60 * 80 * 3, dtype=np.uint32).reshape(60, 80, 3).astype(np.uint8)
    rng = np.random.default_rng(0)
    crops = [random_crop(image, 24, rng) for _ in range(4)]
    assert all(crop.shape == (24, 24, 3) for crop in crops)
    assert not np.array_equal(crops[0], crops[1])


def test_blob_masks_hide_and_keep_some_of_every_picture():
    masks = blob_mask(6, 32, torch.Generator().manual_seed(0))
    kept = masks.mean((1, 2, 3))
    assert masks.shape == (6, 1, 32, 32)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert ((kept > 0.1) & (kept < 0.9)).all()


def test_mixed_targets_stay_distributions():
    gen = torch.Generator().manual_seed(3)
    config = BackboneConfig(mix_probability=1.0)
    target = torch.eye(4)
    for _ in range(4):
        mixed = mix(torch.randn(4, 3, 16, 16), target, config, gen)
        assert torch.allclose(mixed.sum(1), torch.ones(4), atol=1e-6)


def test_size_grows_over_the_epochs():
    config = BackboneConfig(epochs=50)
    sizes = [config.image_size(epoch) for epoch in range(50)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (96, 144)


def test_an_object_on_clutter_leaves_most_of_the_clutter(folder):
    images = load_split(folder).images
    rng = np.random.default_rng(0)
    clutter = clutter_of(images, 48, rng)
    assert clutter.shape == (48, 48, 3)
    white = np.full((40, 40, 3), 255, np.uint8)
    shown = on_clutter(white, clutter, rng, (0.4, 0.5))
    covered = (shown == 255).all(-1).mean()
    assert 0.05 < covered < 0.35
    assert (shown == clutter).all(-1).mean() > 0.6


def test_composites_are_written_once_and_are_the_same_for_a_seed(folder, tmp_path):
    split = load_split(folder)
    one = write_composites(split, tmp_path / "one", 4, 32, seed=1)
    two = write_composites(split, tmp_path / "two", 4, 32, seed=1)
    names = sorted(p.name for p in one.glob("*.jpg"))
    assert len(names) == 4
    assert all((one / n).read_bytes() == (two / n).read_bytes() for n in names)
    before = (one / names[0]).stat().st_mtime_ns
    assert write_composites(split, tmp_path / "one", 4, 32, seed=1) == one
    assert (one / names[0]).stat().st_mtime_ns == before
    fewer = write_composites(split, tmp_path / "one", 2, 48, seed=1)
    found = [picture.shape for picture in map(read_image, sorted(fewer.glob("*.jpg")))]
    assert found == [(48, 48, 3)] * 2


def test_fewer_pictures_than_a_batch_are_refused(folder, tmp_path):
    split = load_split(folder)
    config = BackboneConfig(batch_size=len(split.images) + 1)
    with pytest.raises(DataError, match=r"training pictures: .* at least"):
        train_backbone(split, split, tmp_path / "out", config)


def test_a_picture_that_can_not_be_used_ends_the_training_and_does_not_hang_it(folder):
    images, labels, names, _ = load_split(folder)
    config = BackboneConfig(batch_size=4, phases=((1.0, 32),))
    images[:] = [np.empty((0, 4, 3), np.uint8)] * len(images)
    with pytest.raises(cv2.error):
        list(batches(images, labels, len(names), config, 0))


def test_top1_is_of_pictures_squashed_as_in_use(folder):
    split = load_split(folder)
    seen = []

    class Model(torch.nn.Linear):
        def forward(self, x):
            seen.append(x)
            return torch.eye(2)[[0] * 7 + [1] * 3]

    # 40 x 60 to 48 x 48: one side grows, the other shrinks.
    assert top1(Model(1, 1), split, 48) == 0.8
    pictures = torch.from_numpy(np.stack([squash(image, 48) for image in split.images]))
    assert torch.equal(seen[0], normalise(pictures, MEAN, STD))


SMALL = BackboneConfig(
    model="resnet10t", layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), stem_width=8, epochs=2,
    batch_size=5, phases=((1.0, 32),),
)  # fmt: skip


def train(split, out, config=SMALL, **changes):
    return train_backbone(split, split, out, config, **changes).state_dict()


def test_a_training_cut_short_goes_on_to_the_same_weights(folder, tmp_path, monkeypatch):
    split = load_split(folder)
    whole = train(split, tmp_path / "whole")

    def power_cut(*_):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("scripts.default_backbone.top1", power_cut)
        with pytest.raises(ZeroDivisionError):
            train(split, tmp_path / "cut")
    again = train(split, tmp_path / "cut")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["backbone.safetensors"]


def test_a_training_goes_on_only_as_it_began(folder, tmp_path):
    split = load_split(folder)
    first = train(split, tmp_path / "first")
    tuned = train(split, tmp_path, SMALL.tuned(1), start=first)
    again = train(split, tmp_path, SMALL.tuned(1), start=first)
    assert all(torch.equal(again[name], tuned[name]) for name in tuned)
    other = {name: value + 1 for name, value in first.items()}
    for config, data, start, what in (
        (SMALL.tuned(0), split, first, "has 1 epochs"),
        (SMALL.tuned(1), split, other, "is of another start"),
        (SMALL.tuned(1), split, None, "is of another start"),
        (SMALL.tuned(2), split._replace(digest="other"), first, "is of another data"),
        (replace(SMALL.tuned(2), lr=1.0), split, first, "is of another lr"),
    ):
        with pytest.raises(TrainError, match=f"backbone.safetensors {what}; choose another --out"):
            train(data, tmp_path, config, start=start)
    with pytest.raises(ModelError, match=r"weights to begin with: .*size mismatch"):
        train(split, tmp_path / "new", replace(SMALL, channels=(8, 8, 8, 16)), start=first)


def test_a_teacher_is_followed_and_is_part_of_the_recipe(folder, tmp_path):
    split = load_split(folder)

    class Teacher(torch.nn.Linear):
        def forward(self, x):
            return torch.tensor([[0.0, 9.0]]).expand(len(x), 2)

    config = replace(SMALL, epochs=20, lr=0.05, teacher_share=1.0)
    state = train(split, tmp_path, config, teacher=Teacher(1, 1))
    model = config.build(2)
    model.load_state_dict(state)
    assert top1(model, split._replace(labels=np.ones_like(split.labels)), 32) == 1.0
    for other in (Teacher(1, 2), None):
        with pytest.raises(TrainError, match=r"backbone.safetensors is of another teacher"):
            train(split, tmp_path, config, teacher=other)

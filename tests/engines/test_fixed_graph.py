"""The graph of one frame size is the free one, at every precision; the model is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from engines import OptionError
from engines.fixed_graph import FixedGraph
from engines.golden import golden_frames
from engines.graph import FrameGraph
from engines.resizing import resize_frames
from nem.backbone import create_backbone
from nem.explanation import AIMS
from nem.model import NEM
from tests.engines.conftest import NAMES, SIZE, random_frames, tiny_model
from tests.nem.toys import tiny_backbone

# Of masks and scores: the largest, and the mean difference. f16 keeps 11 bits of each number and
# bf16 8, over some 25 layers; with masks that use all of [0, 1] a rounding of 2^-11 or 2^-8 adds up
# to a few times itself.
BOUNDS = {"f16": (0.01, 1e-3), "bf16": (0.08, 1e-2)}


def outputs(graph: FrameGraph, frames: np.ndarray, target: int) -> list[torch.Tensor]:
    classes = torch.full((len(frames),), target, dtype=torch.int32)
    with torch.no_grad():
        return list(graph(torch.from_numpy(frames), classes))


@pytest.mark.parametrize("target", [-1, 3])
@pytest.mark.parametrize("size", [None, (48, 100), (131, 66), (20, 30)])
def test_in_f32_it_is_the_free_graph(size: tuple[int, int] | None, target: int) -> None:
    model = tiny_model()
    fixed, free = FixedGraph(model, size), FrameGraph(model).eval()
    assert fixed.frame_size == (size or (SIZE, SIZE))
    frames = random_frames(2, *fixed.frame_size)
    found, expected = outputs(fixed, frames, target), outputs(free, frames, target)
    assert len(found) == len(AIMS) + 2
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value, reference, atol=1e-5, rtol=1e-5)
    other = outputs(fixed, frames, 1)
    assert (found[3] - other[3]).abs().max() > 1e-3, "the target has to count"


@pytest.mark.parametrize("precision", BOUNDS)
def test_16_bits_stay_within_their_bounds_and_give_float32(precision: str) -> None:
    model = tiny_model()
    graph = FixedGraph(model, (48, 100), precision)
    frames = random_frames(3, 48, 100)
    found, expected = outputs(graph, frames, 2), outputs(FixedGraph(model, (48, 100)), frames, 2)
    assert {value.dtype for value in found} == {torch.float32}
    assert {p.dtype for p in graph.model.parameters()} == {graph.dtype} != {torch.float32}
    largest, mean = BOUNDS[precision]
    moved = 0.0
    for aim, value, reference in zip((*AIMS, "scores"), found, expected, strict=False):
        unit = reference.abs().max() if aim == "ranking" else 1
        difference = (value - reference).abs() / unit
        assert difference.max() <= largest, aim
        assert difference.mean() <= mean, aim
        moved = max(moved, float(difference.max()))
    assert moved > 1e-5, "16 bits have to be used"


@pytest.mark.parametrize(("precision", "levels"), [("f32", 1e-3), ("bf16", 1e-3), ("f16", 0.2)])
@pytest.mark.parametrize("size", [(270, 480), (30, 40), (20, 300)])
def test_frames_are_resized_as_in_the_free_graph(
    size: tuple[int, int], precision: str, levels: float
) -> None:
    frames = torch.from_numpy(np.concatenate([random_frames(2, *size), golden_frames(size, 1)]))
    frames[1] //= 128
    frames[1] *= 255  # black and white
    found = FixedGraph(tiny_model(), size, precision).prepare(frames)
    exact = FixedGraph(tiny_model(), size, "f32")
    expected = resize_frames(frames.float(), (SIZE, SIZE))
    # Undo what follows: f16 and bf16 are cast once more behind it.
    pixels = (exact.prepare(frames).permute(0, 2, 3, 1) - exact.shift) / exact.scale
    assert (pixels - expected).abs().max() <= 1e-3
    coarse = torch.finfo(found.dtype).eps * 3 / exact.scale.min()
    pixels = (found.float().permute(0, 2, 3, 1) - exact.shift) / exact.scale
    assert (pixels - expected).abs().max() <= levels + coarse


def resnet_d(size: int) -> NEM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NEM(tiny_backbone("resnet", size=size), "lite", width=16).eval()


def rounding(graph: nn.Module) -> list[bool]:
    return [m.ceil_mode for m in graph.modules() if isinstance(m, nn.AvgPool2d)]


def test_pools_without_a_remainder_lose_their_rounding_and_compute_the_same() -> None:
    model = resnet_d(64)
    assert rounding(model) == [True] * 3
    fixed = FixedGraph(model)
    assert rounding(fixed) == [False] * 3
    counted = [m.count_include_pad for m in fixed.modules() if isinstance(m, nn.AvgPool2d)]
    assert counted == [True] * 3
    frames = random_frames(1, 64, 64)
    for value, reference in zip(
        outputs(fixed, frames, -1), outputs(FrameGraph(model).eval(), frames, -1), strict=True
    ):
        assert torch.equal(value, reference)


def test_a_pool_with_a_remainder_keeps_its_rounding() -> None:
    model = resnet_d(72)  # maps of 18, 9, 5 and 3: the second and third pool have a remainder
    fixed = FixedGraph(model, (72, 72))
    assert rounding(fixed) == [False, True, True]
    frames = random_frames(1, 72, 72)
    for value, reference in zip(
        outputs(fixed, frames, -1), outputs(FrameGraph(model).eval(), frames, -1), strict=True
    ):
        assert torch.equal(value, reference)


@pytest.mark.parametrize(
    ("size", "pool"),
    [
        (64, nn.AvgPool2d(4, 2, 1, ceil_mode=True, count_include_pad=False)),
        (28, nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)),  # maps of 7, 4 and 2
    ],
    ids=["padded", "shared, with a remainder at first"],
)
def test_a_pool_whose_rounding_counts_anywhere_keeps_it(size: int, pool: nn.AvgPool2d) -> None:
    model = resnet_d(size)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AvgPool2d):
                setattr(parent, name, pool)
    frames = random_frames(1, size, size)
    found = outputs(FixedGraph(model), frames, -1)
    for value, reference in zip(found, outputs(FrameGraph(model).eval(), frames, -1), strict=True):
        assert torch.equal(value, reference)


def test_the_model_is_left_alone() -> None:
    model = resnet_d(64).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = FixedGraph(model, (40, 50), "f16")
    assert not any(module.training for module in graph.modules())
    assert model.decoder.training
    assert rounding(model) == [True] * 3
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name


def test_examples_have_the_shapes_of_the_inputs() -> None:
    frames, classes = FixedGraph(tiny_model(), (30, 40)).example(4)
    assert (frames.shape, frames.dtype) == ((4, 30, 40, 3), torch.uint8)
    assert (classes.tolist(), classes.dtype) == ([-1] * 4, torch.int32)
    plain = FixedGraph(tiny_model(aims=("class",)))
    (frames,) = plain.example()
    assert frames.shape == (1, SIZE, SIZE, 3)
    with torch.no_grad():
        assert plain(frames)[1].shape == (1, len(NAMES))


@pytest.mark.parametrize(
    ("size", "precision", "say"),
    [
        (None, "f64", "precision 'f64', allowed: f32, f16, bf16"),
        (None, "fp16", "allowed: f32, f16, bf16"),
        ((0, 10), "f32", r"\(0, 10\): height and width from 1"),
        ((10, -1), "f16", "height and width from 1"),
    ],
)
def test_refuses_other_sizes_and_precisions(
    size: tuple[int, int] | None, precision: str, say: str
) -> None:
    with pytest.raises(OptionError, match=say):
        FixedGraph(tiny_model(), size, precision)


def test_a_vit_is_the_free_graph_too() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = create_backbone(
            "vit_tiny_patch16_224",
            input_size=64,
            patch_size=8,
            embed_dim=32,
            depth=4,
            num_heads=2,
            num_classes=5,
        )
        model = NEM(backbone, "lite", width=16).eval()
    frames = random_frames(1, 50, 70)
    fixed, free = FixedGraph(model, (50, 70)), FrameGraph(model).eval()
    for value, reference in zip(outputs(fixed, frames, -1), outputs(free, frames, -1), strict=True):
        torch.testing.assert_close(value, reference, atol=1e-5, rtol=1e-5)

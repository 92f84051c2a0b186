"""The fused graph: its resize is the shared one, and it is the same in torch and in the file."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from engines import open_engine, resize
from engines.graph import FrameGraph
from engines.resizing import resize_frames, resize_weights
from nem.bundle import Bundle
from nem.bundle_io import load_model
from nem.explanation import AIMS
from tests.engines.conftest import NAMES, SIZE, random_frames

SIZES = [(64, 64), (128, 192), (65, 63), (1080, 1920), (37, 53), (1, 1), (200, 31), (31, 200)]


@pytest.mark.parametrize("size", SIZES)
def test_resize_is_the_shared_one(size: tuple[int, int]) -> None:
    frames = random_frames(1, *size)
    found = resize_frames(torch.from_numpy(frames).float(), (SIZE, SIZE)).numpy()
    expected = resize(frames[0], (SIZE, SIZE)).astype(np.float32)
    assert np.abs(found[0] - expected).max() <= 1.0


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 640])
def test_weights_average(length: int) -> None:
    weights = resize_weights(length, 64)
    assert weights.shape == (64, length)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(64))
    if length == 64:
        torch.testing.assert_close(weights, torch.eye(64))


def test_file_computes_what_torch_does_at_any_size(bundle: Bundle) -> None:
    graph = FrameGraph(load_model(bundle)).eval()
    session = onnxruntime.InferenceSession(bundle.graph_path, providers=["CPUExecutionProvider"])
    maps = [f"mask_{aim}" for aim in AIMS]
    assert [o.name for o in session.get_outputs()] == [*maps, "scores", "embedding"]
    for count, (height, width) in enumerate(SIZES[:3] + SIZES[4:], start=1):
        frames = random_frames(count, height, width)
        with torch.no_grad():
            for target in (np.full(count, -1), np.arange(count) % 5):
                expected = graph(torch.from_numpy(frames), torch.from_numpy(target))
                found = session.run(None, {"frames": frames, "target": target})
                for value, reference in zip(found, expected, strict=True):
                    np.testing.assert_allclose(value, reference.numpy(), rtol=1e-3, atol=1e-4)


def test_resize_in_the_file_matches_resize_before_the_engine(bundle: Bundle) -> None:
    """A runtime may resize inside or be handed resized frames: the same mask but for rounding."""
    frames = random_frames(2, 100, 171)
    session = onnxruntime.InferenceSession(bundle.graph_path, providers=["CPUExecutionProvider"])
    asked = {"frames": frames, "target": np.full(2, -1)}
    inside = session.run(["mask_embedding"], asked)[0]
    with open_engine(bundle, precision="f32") as engine:
        before = engine.run(frames).mask
    assert np.abs(inside - before).max() < 0.05
    assert np.abs(inside - before).mean() < 0.005


def test_no_target_is_the_most_probable_class(bundle: Bundle) -> None:
    graph = FrameGraph(load_model(bundle)).eval()
    frames = torch.from_numpy(random_frames(4, SIZE, SIZE))
    with torch.no_grad():
        *maps, scores, _ = graph(frames)
        best, last = scores.argmax(1), len(NAMES) - 1
        for target in (torch.full((4,), -1), best):
            torch.testing.assert_close(graph(frames, target)[3], maps[3])
        assert last not in best
        other = graph(frames, torch.full((4,), last))
    for aim, one, two in zip(AIMS, maps, other, strict=False):
        assert torch.equal(one, two) is (aim != "target"), aim


def test_backbone_runs_once_per_batch(bundle: Bundle) -> None:
    graph = FrameGraph(load_model(bundle)).eval()
    calls = []
    graph.model.backbone.register_forward_hook(lambda *_: calls.append("backbone"))
    graph.model.backbone.model.conv1.register_forward_hook(lambda *_: calls.append("stem"))
    with torch.no_grad():
        maps = graph(torch.from_numpy(random_frames(3, 80, 70)), torch.tensor([0, 1, -1]))
    assert len(maps) == len(AIMS) + 2
    assert calls == ["stem", "backbone"]

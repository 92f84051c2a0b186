"""One small bundle with random weights, written once, and engines opened on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engines import Engine, FakeEngine, Store, open_engine, save_bundle
from engines.cpu import cpu_flags, has_bf16
from engines.graph import FrameGraph
from engines.trt import TensorRtEngine
from engines.trt_runner import TrtRunner
from nem.backbone import create_backbone
from nem.bundle import Bundle
from nem.class_layers import Classes
from nem.explanation import AIMS, Aim
from nem.model import NEM
from tests.engines import fake_tensorrt
from tests.engines.small_trt import engine_of

SIZE = 64
NAMES = ("ant", "bee", "cat", "dog", "elk")
CHANNELS = (8, 16, 24, 32)
SPREAD = 1.1


def tiny_model(
    classes: tuple[str, ...] = NAMES, seed: int = 0, aims: tuple[Aim, ...] = AIMS
) -> NEM:
    """A NEM on a narrow resnet18 whose masks and scores vary with the picture.

    Without classes it only has the head `embedding`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = create_backbone(
            "resnet18",
            channels=CHANNELS,
            num_classes=len(classes),
            input_size=SIZE,
            classes=classes,
        )
        model = NEM(backbone, "lite", aims if classes else ("embedding",), width=16)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # as after training: not the identity
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
                nn.init.normal_(module.running_mean, 0, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.1)
        _spread_masks(model.eval())
    return model


@torch.no_grad()
def _spread_masks(model: NEM) -> None:
    """Scale the heads so that masks use all of [0, 1], as those of a trained model do."""
    x = FrameGraph(model).prepare(torch.from_numpy(random_frames(4, SIZE, SIZE)))
    features = model.backbone(x)
    decoder, classes = model.decoder, None
    if features.logits is not None:
        logits = features.logits
        classes = Classes(model.backbone.class_rows(), logits, logits.argmax(1))
    for aim, logits in decoder(features.pyramid, x, classes).items():
        layer, at = (decoder.target.draw[-1], 0) if aim == "target" else (decoder.head, None)
        at = decoder.plain.index(aim) if at is None else at
        layer.weight[at] *= SPREAD / logits.std()
        layer.bias[at] = (layer.bias[at] - logits.mean()) * SPREAD / logits.std()


def random_frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """RGB uint8 (N, H, W, 3): coarse random blocks, as smooth as pictures are, and fine noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 200, (count, height // 8 + 1, width // 8 + 1, 3))
    blocks = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return (blocks + random.integers(0, 56, blocks.shape)).astype(np.uint8)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return save_bundle(tiny_model(), tmp_path_factory.mktemp("bundle") / "tiny", name="tiny")


def open_fake_tensorrt(bundle: Bundle) -> Engine:
    """The TensorRT engine on a fake TensorRT, which runs its graph in torch."""
    with pytest.MonkeyPatch.context() as patch:
        fake_tensorrt.install(patch, fake_tensorrt.shared_fakes())
        return TensorRtEngine(bundle, precision="f32", batch=2)


OPENERS: dict[str, Callable[[Bundle], Engine]] = {
    "fake": FakeEngine,
    "eager-f32": lambda bundle: open_engine(bundle, "eager", device="cpu"),
    "eager-bf16": lambda bundle: open_engine(bundle, "eager", device="cpu", precision="bf16"),
    "openvino-f32": lambda bundle: open_engine(bundle, "openvino", precision="f32"),
    "openvino-f32-batch-2": lambda bundle: open_engine(
        bundle, "openvino", precision="f32", batch=2
    ),
    "openvino-bf16": lambda bundle: open_engine(bundle, "openvino", precision="bf16"),
    "tensorrt-fake": open_fake_tensorrt,
}


def open_by_kind(kind: str, bundle: Bundle) -> Engine:
    if kind == "openvino-bf16" and not has_bf16(cpu_flags()):
        pytest.skip("this CPU does not compute in bf16")
    return OPENERS[kind](bundle)


@pytest.fixture(params=OPENERS)
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Engine]:
    """Every engine in turn, freshly opened."""
    with open_by_kind(request.param, bundle) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store of this test's own."""
    return Store(tmp_path / "engines")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> fake_tensorrt.Fakes:
    """A TensorRT and a GPU of this test's own, in the place of the real ones."""
    return fake_tensorrt.install(monkeypatch, fake_tensorrt.make_fakes())


@pytest.fixture
def runner(fakes: fake_tensorrt.Fakes) -> Iterator[TrtRunner]:
    """A runner of the small engine; all it took has to be given back."""
    runner = TrtRunner(engine_of(fakes))
    yield runner
    runner.close()
    assert fakes.cuda.leaks() == 0

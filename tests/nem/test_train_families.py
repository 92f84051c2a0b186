"""Every method learns on the usual families at their real widths, with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nem.backbone import create_backbone
from nem.bundle_io import state_sha256
from nem.config import TrainConfig
from nem.explanation import AIM_OF
from nem.train import fit
from tests.nem.toys import SIZE, shapes, write_pictures

METHODS = tuple(AIM_OF)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "vgg16", "vit_small_patch16_224"])
def test_one_epoch_of_all_methods(name: str, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures", shapes(4, 0)[0])
    backbone = create_backbone(name, input_size=SIZE, num_classes=10)
    before = state_sha256(backbone.state_dict())
    config = TrainConfig(
        data=(data,), out=tmp_path / "out", batch_size=2, accumulate=1, epochs=1, ks=1,
        methods=METHODS, accelerator="cpu",
    )  # fmt: skip
    model = fit(config, backbone=backbone, progress=False)
    assert state_sha256(model.backbone.state_dict()) == before
    with torch.no_grad():
        maps = model(torch.randn(1, 3, SIZE, SIZE)).maps
    assert tuple(maps) == config.aims
    for aim, value in maps.items():
        assert value.shape == (1, 1, SIZE, SIZE), aim
        assert torch.isfinite(value).all(), aim
    assert (tmp_path / "out" / "masks-epoch-001.png").exists()

import subprocess
import sys
from pathlib import Path

import pytest

from nem.config import TrainConfig
from nem.errors import TrainError
from tests.nem.toys import write_tiny_bundle


def make(**changes: object) -> TrainConfig:
    return TrainConfig(**({"data": ("pictures",), "out": Path("out")} | changes))


def test_defaults_are_the_method_s() -> None:
    config = make(model="resnet50")
    assert (config.batch_size, config.accumulate, config.epochs) == (32, 4, 10)
    assert (config.lr, config.weight_decay, config.cosine) == (1, 0.01, True)
    assert (config.loss, config.fill, config.flip, config.precision) == (
        "intent",
        "mean",
        False,
        "32",
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": ()}, "data: nothing given"),
        ({"data": "photos"}, "data photos: give a list of paths, as ['photos']"),
        ({"decoder": "big"}, "decoder 'big': allowed are lite, paper"),
        ({"loss": "nemt"}, "loss 'nemt': allowed are intent, code, printed"),
        ({"fill": "blur"}, "fill 'blur': allowed are mean, noise"),
        ({"methods": ()}, "methods (): name one or several"),
        (
            {"methods": ("nem-u", "gradcam")},
            "method 'gradcam': allowed are nem-u, nemt, ra-nem, nemt-target",
        ),
        (
            {"methods": ("nemt", "nem-u", "nemt")},
            "methods ('nemt', 'nem-u', 'nemt'): name one or several, each once",
        ),
        ({"score": "cosine"}, "score 'cosine': allowed are softmax, logits"),
        ({"ks": 0}, "ks 0: must be at least 1"),
        ({"grid": 0}, "grid 0: must be at least 2"),
        ({"grid": 3}, "grid: of ra-nem, not trained"),
        ({"detach_threshold": True}, "detach_threshold: of ra-nem"),
        ({"ks": 2, "stratified": True}, "ks, stratified: of ra-nem"),
        ({"score": "logits"}, "score: of nemt and nemt-target, not trained"),
        ({"class_area_weight": 1}, "class_area_weight: of nemt and nemt-target"),
        ({"methods": ("nemt",), "loss": "code"}, "loss: of nem-u, not trained"),
        ({"area_weight": -1}, "area_weight -1: must be at least 0"),
        ({"class_area_weight": -1}, "class_area_weight -1: must be at least 0"),
        ({"deletion_weight": float("nan")}, "deletion_weight nan: must be at least 0"),
        ({"precision": "16"}, "precision '16': allowed are 32, bf16"),
        ({"accelerator": "tpu"}, "accelerator 'tpu'"),
        ({"devices": 0}, "devices 0"),
        ({"devices": "two"}, "devices 'two'"),
        ({"batch_size": 1}, "batch_size 1: must be at least 2"),
        ({"accumulate": 0}, "accumulate 0"),
        ({"epochs": 0}, "epochs 0: must be above 0"),
        ({"epochs": float("nan")}, "epochs nan"),
        ({"epochs": float("inf")}, "epochs inf"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"lr": -1}, "lr -1"),
        ({"weight_decay": float("nan")}, "weight_decay nan"),
        ({"every": 0}, "every 0"),
        ({"input_size": 8}, "input_size 8"),
        ({"weights": "timm"}, "weights timm: of which model"),
        ({"model": "resnet50", "weights": "nowhere.safetensors"}, "no such file; allowed are"),
        ({"model": "owner/name", "weights": "none"}, "weights: not with bundle owner/name"),
        ({"model": "owner/name", "input_size": 96}, "input_size: not with bundle"),
        ({"model": "owner/name", "model_kwargs": {"a": 1}}, "model_kwargs: not with bundle"),
        ({"model": "runs/none/bundle"}, "model runs/none/bundle: no such folder"),
        ({"out": Path(__file__)}, "is a file; give a folder"),
    ],
)
def test_clashes_are_refused_at_once(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(TrainError) as error:
        make(**changes)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_bundles_and_models_are_told_apart(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "b").path
    assert make(model=str(folder)).from_bundle
    assert make(model=folder).from_bundle
    assert make(model="owner/name").from_bundle
    assert not make(model="resnet50").from_bundle
    assert not make().from_bundle


def test_the_recipe_ignores_where_but_not_how() -> None:
    one = make(model="resnet50")
    moved = make(model="resnet50", out=Path("other"), data=("moved",), workers=2, resume=True)
    assert one.recipe() == moved.recipe()
    for change in ({"seed": 1}, {"loss": "code"}, {"epochs": 11}, {"decoder_kwargs": {"width": 8}}):
        assert make(model="resnet50", **change).recipe() != one.recipe()


def test_a_command_line_can_check_settings_without_torch() -> None:
    code = "import sys, nem.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

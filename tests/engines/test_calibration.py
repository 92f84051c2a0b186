"""Pictures of a calibration, BatchNorm folded away, and what is compared of rounded answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nem.data
from engines import OptionError, calibration, resize
from engines.batchnorm import fold_batchnorm
from engines.calibration import find_files, hash_files, read_pictures, spread
from engines.parity import compare_answers
from engines.quant_check import HeldOut
from engines.quant_graph import folded
from tests.engines.conftest import SIZE, random_frames, tiny_model

AIMS = ("embedding", "ranking")


def write_images(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for index, frame in enumerate(random_frames(count, 30, 50)):
        cv2.imwrite(str(folder / f"{index:03}.png"), frame[..., ::-1])


def write_video(path: Path, count: int) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 48, 32
        for index in range(count):
            grey = np.full((32, 48, 3), index % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        container.mux(stream.encode())


@pytest.mark.parametrize(("items", "count"), [(1000, 16), (17, 16), (2000, 516)])
def test_spreads_evenly_and_always_the_same(items: int, count: int) -> None:
    chosen = spread(range(items), count)
    assert len(set(chosen)) == count
    assert chosen == sorted(chosen) == spread(range(items), count)
    assert max(np.diff([0, *chosen, items])) <= 2 * -(-items // count)
    assert np.diff(chosen).std() > 0, "not in step with anything that repeats"
    assert spread(range(3), 16) == [0, 1, 2]


def test_reads_images_as_the_engine_resizes_frames_and_holds_some_out(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 24)
    said: list[str] = []
    found = read_pictures(tmp_path, SIZE, said.append)
    right = {resize(frame, (SIZE, SIZE)).tobytes() for frame in random_frames(24, 30, 50)}
    parts = [[p.tobytes() for p in part] for part in (found.frames, found.held_out)]
    assert [len(part) for part in parts] == [18, 6]
    assert set(parts[0]) | set(parts[1]) == right
    assert found.frames.shape == (18, SIZE, SIZE, 3)
    again = read_pictures(tmp_path, SIZE)
    np.testing.assert_array_equal(found.frames, again.frames)
    assert ["only 24 pictures; some 500 are best" in line for line in said] == [True]


def test_of_much_an_even_part_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "COUNT", 40)
    write_video(tmp_path / "long.mp4", 200)
    write_images(tmp_path, 6)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    said: list[str] = []
    found = read_pictures(tmp_path, 16, said.append)
    assert (len(found.frames), len(found.held_out)) == (42, 14)
    greys = found.frames.mean((1, 2, 3))
    assert greys.max() > 180, "the video's end is read, too"
    assert "1 files can't be read" in said[0]


@pytest.mark.parametrize("name", ["counted.mp4", "uncounted.mkv"])
def test_of_a_long_video_not_much_more_is_held_than_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A film, whole, fits no memory."""
    held: list[int] = []
    whole = nem.data.collect

    def collect(*given: Any, **options: Any) -> Any:
        found = whole(*given, **options)
        held.append(len(found))
        return found

    monkeypatch.setattr(calibration, "COUNT", 10)
    monkeypatch.setattr(calibration, "HELD_OUT", 2)
    write_video(tmp_path / name, 120)
    monkeypatch.setattr(nem.data, "collect", collect)
    found = read_pictures(tmp_path / name, 16)
    assert len(found.frames) + len(found.held_out) == 12
    assert held == [12]


def test_too_little_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nowhere: no such file or folder; give images, videos"):
        find_files(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(OptionError, match="neither an image nor a video; give images"):
        hash_files(tmp_path)
    write_images(tmp_path, 7)
    with pytest.raises(OptionError, match="7 pictures, at least 8 are needed and some 500 of"):
        read_pictures(tmp_path, SIZE)
    for file in tmp_path.glob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(OptionError, match="no usable picture"):
        read_pictures(tmp_path, SIZE)


def test_the_hash_is_of_the_pictures_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "one", 9)
    before = hash_files(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "notes.txt").write_text("text")
    os.utime(tmp_path / "two" / "000.png", (1, 1))
    assert hash_files(tmp_path / "two") == before
    (tmp_path / "two" / "000.png").write_bytes((tmp_path / "two" / "001.png").read_bytes())
    assert hash_files(tmp_path / "two") != before


def test_hashing_needs_no_torch(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    code = (
        "import sys, pathlib, engines.trt, engines.calibration as c\n"
        f"c.hash_files(pathlib.Path({str(tmp_path)!r}))\n"
        "print(sorted({'torch', 'timm', 'modelopt', 'tensorrt'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Norm(nn.BatchNorm2d):
    """Of a kind that nobody knows."""


class Act(nn.BatchNorm2d):
    """As timm's, with an activation of its own."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.drop, self.act = nn.Identity(), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class Net(nn.Module):
    """What is used twice, or read by something else as well, has to stay."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.plain = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.b, self.act = nn.Conv2d(4, 4, 3, groups=2), Act(4)
        self.c, self.read = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.d, self.twice = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.e, self.odd = nn.Conv2d(4, 4, 1), Norm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.b(self.plain(self.a(x))))
        y = self.c(x)
        x = self.read(y) + y.relu()
        x = self.twice(self.d(self.twice(self.d(x))))
        return self.odd(self.e(x))


def test_folds_only_what_alone_reads_a_convolution() -> None:
    torch.manual_seed(0)
    net, x = Net(), torch.randn(4, 3, 9, 9)
    for _ in range(20):
        net(x)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        right = net.eval()(x)
        assert fold_batchnorm(net, x) == 2
        torch.testing.assert_close(net(x), right, atol=1e-4, rtol=1e-4)
    assert type(net.plain) is nn.Identity
    assert isinstance(net.act, nn.Sequential)
    assert [type(m) for m in (net.read, net.twice, net.odd)] == [
        nn.BatchNorm2d, nn.BatchNorm2d, Norm,
    ]  # fmt: skip


def test_a_folded_model_explains_the_same() -> None:
    model = tiny_model()
    right = HeldOut.of(model, random_frames(3, 50, 60), (SIZE, SIZE))
    found = HeldOut.of(folded(model), random_frames(3, 50, 60), (SIZE, SIZE))
    assert not [m for m in folded(model).modules() if isinstance(m, nn.BatchNorm2d)]
    for name, value in right.expected.items():
        np.testing.assert_allclose(found.expected[name], value, atol=2e-4, rtol=2e-4)


def answers(flips: int, off: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Answers to 8 frames; the first `flips` tie, fall the other way, and have other masks."""
    random = np.random.default_rng(0)
    mask = random.random((8, 6, 6), np.float32)
    scores = np.full((8, 2), (0.51, 0.49), np.float32)
    right = {"mask_embedding": mask, "mask_ranking": mask * 9, "scores": scores,
             "embedding": random.random((8, 5), np.float32)}  # fmt: skip
    found = {name: value.copy() for name, value in right.items()}
    found["scores"][:flips] = (0.49, 0.51)
    found["mask_embedding"] += off
    for name in ("mask_embedding", "mask_ranking"):
        found[name][:flips] = right[name][:flips, ::-1]
    return found, right


@pytest.mark.parametrize(
    ("flips", "off", "ok"), [(0, 0, True), (0, 0.03, False), (3, 0.01, True), (5, 0, False)]
)
def test_masks_are_compared_where_the_same_class_was_decided(
    flips: int, off: float, ok: bool
) -> None:
    found, right = answers(flips, off)
    parity = compare_answers(found, right, AIMS, engine="tensorrt", precision="int8")
    assert parity.mask_mean == pytest.approx(off, abs=1e-6)
    assert (parity.rank_mean, parity.top1) == (0, 1 - flips / 8)
    assert parity.score_max == pytest.approx(0.02 * bool(flips), abs=1e-6)
    held_out = HeldOut(np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1), right)
    sizes = []

    def run(frames: np.ndarray, _: object) -> dict[str, np.ndarray]:
        sizes.append(len(frames))
        return {name: value[frames[:, 0, 0, 0]] for name, value in found.items()}

    wrong = held_out.wrong(run, 3, AIMS, engine="tensorrt", precision="int8")
    assert (wrong is None) is ok, wrong
    assert sizes == [3, 3, 3]


def test_no_frame_of_the_same_class_is_no_agreement() -> None:
    parity = compare_answers(*answers(8, 0), AIMS, engine="tensorrt", precision="fp8")
    assert np.isnan(parity.mask_mean)
    assert not parity.ok

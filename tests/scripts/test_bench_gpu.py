"""The benchmark of GPUs as far as it goes without one: its table, its arithmetic, its flow."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor as ThreadPool
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
from torch import nn

from engines import EngineError
from engines.gpus import Gpu
from nem.model import NEM
from scripts import bench_gpu, gpu_measure, gpu_packages
from scripts.bench_gpu import Options
from scripts.gpu_calls import BackboneGraph, Call, make_graph
from scripts.gpu_packages import Wanted, build_ahead
from scripts.gpu_report import Report, Row, percentiles, table
from scripts.gpu_roofline import Roof, Work, copy_rate, count_work, product_rate
from tests.nem.toys import tiny_backbone

ROOT = Path(__file__).parents[2]
NATIVE = (1080, 1920)
H100 = Gpu(0, "NVIDIA H100 80GB HBM3", "9.0", "580.65.06")


def row(engine="tensorrt", batch=1, frame=NATIVE, case="lite", p50=0.8, **words):
    figures = {"p95": 0.9, "fps": 1250.0, "share": 0.42, "bound": "memory"}
    return Row(engine, "f16", batch, frame, case, p50=p50, **(figures | words))


def pair(with_ms, without_ms, **words):
    return [row(case="backbone", p50=without_ms, **words), row(p50=with_ms, **words)]


def test_the_table_has_a_ratio_behind_each_explanation():
    report = Report(rows=[*pair(0.84, 0.8), *pair(3.0, 2.0, engine="inductor", wrong="mask: off")])
    lines = [" ".join(line.split()) for line in table(report)]
    assert lines[0] == "engine batch frame case p50 ms p95 ms fps roof ratio"
    assert lines[1] == "tensorrt f16 1 1920x1080 backbone 0.800 0.900 1250 42.0%"
    assert lines[2] == "tensorrt f16 1 1920x1080 lite 0.840 0.900 1250 42.0% 1.050"
    assert lines[4].endswith(" 1.500 WRONG: mask: off")
    assert len({len(line) for line in table(Report(rows=pair(0.84, 0.8)))[::2]}) == 1


def test_ratios_are_of_the_same_engine_batch_and_frame():
    report = Report(rows=[*pair(2.0, 1.0), *pair(9.0, 3.0, batch=8), row(frame=(224, 224))])
    assert [ratio for _, ratio in report.overheads()] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("with_ms", "without_ms", "mask", "overhead"),
    [
        (0.84, 0.8, "0.840 ms (asked <= 1.00 ms): met", "1.050 x (asked <= 1.15 x): met"),
        (1.0, 0.8, "1.000 ms (asked <= 1.00 ms): met", "1.250 x (asked <= 1.15 x): MISSED"),
        (1.1, 1.05, "1.100 ms (asked <= 1.00 ms): MISSED", "1.048 x (asked <= 1.15 x): met"),
    ],
)
def test_what_was_asked_for_is_met_or_missed(with_ms, without_ms, mask, overhead):
    quick_but_wrong = pair(0.1, 0.1, engine="eager", wrong="not finite")
    slow = pair(5.0, 2.0, engine="inductor")
    other_frames = pair(0.2, 0.1, frame=(224, 224))
    rows = [*slow, *pair(with_ms, without_ms), *quick_but_wrong, *other_frames]
    head, first, second = Report(rows=rows).asked(NATIVE)
    assert head == "batch 1 from 1920x1080, quickest is tensorrt in f16:"
    assert mask in first
    assert overhead in second
    assert second.endswith(f"{int('MISSED' not in overhead)} of 3 are within")


def test_what_was_not_measured_is_not_met():
    (line,) = Report(rows=pair(0.5, 0.5, batch=8)).asked(NATIVE)
    assert line == "what was asked for (batch 1 from 1920x1080): not measured"


def test_percentiles():
    assert percentiles([float(value) for value in range(101)]) == (50.0, 95.0)
    assert percentiles([2.0, 2.0]) == (2.0, 2.0)


def test_the_roof_is_the_slower_of_arithmetic_and_memory():
    roof = Roof(multiply_adds=1e12, bytes=1e9)
    heavy, wide = Work(4 * 10**9, 10**6), Work(10**9, 5 * 10**6)
    assert roof.least_ms(heavy) == pytest.approx(4.0)
    assert roof.least_ms(wide) == pytest.approx(5.0)
    assert [roof.bound_by(work) for work in (heavy, wide)] == ["arithmetic", "memory"]
    assert roof.share(heavy, 8.0) == pytest.approx(0.5)


def test_rates_of_a_product_and_a_copy():
    assert product_rate(1000, 1.0) == pytest.approx(1e12)
    assert copy_rate(10**6, 1.0) == pytest.approx(2e9)


def test_work_is_counted_of_shapes_alone():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
            self.last = nn.Linear(8, 5).half()

        def forward(self, x):
            return (self.last(self.first(x).mean((2, 3)).half()),)

    work = count_work(Two(), [torch.zeros(2, 3, 10, 10)])
    assert work.multiply_adds == 2 * (10 * 10 * 8 * 3 * 9 + 8 * 5)
    weights, frames, output = 4 * 8 * 27 + 2 * (8 * 5 + 5), 4 * 2 * 300, 2 * 2 * 5
    assert work.bytes == weights + frames + output


@pytest.fixture(scope="module")
def model():
    return NEM(tiny_backbone(), "lite", ("embedding",), width=16).eval()


def test_the_model_alone_gives_what_it_gives_with_its_explanation(model):
    size = (90, 130)
    frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    alone, whole = (make_graph(model, case, size, "f32") for case in ("backbone", "lite"))
    assert isinstance(alone, BackboneGraph)
    with torch.inference_mode():
        few, all_of = alone(frames), whole(frames)
    assert whole.outputs[1:] == alone.outputs
    assert (len(all_of), len(few)) == (3, 2)
    for found, expected in zip(few, all_of[1:], strict=True):
        torch.testing.assert_close(found, expected)
    work = [count_work(graph, graph.example(2)) for graph in (alone, whole)]
    assert work[0].multiply_adds < work[1].multiply_adds


@pytest.fixture
def on_the_cpu(model, monkeypatch):
    """All of the measuring, with the CPU in the place of the GPU; "inductor" is wrong."""

    def call(engine, graph, batch, package):
        assert package == (b"package" if engine == "inductor" else None)
        if batch == 8:
            raise EngineError("too little memory")

        graph.float().dtype = torch.float32  # half a float is slow on a CPU

        def run(frames):
            with torch.inference_mode():
                found = dict(zip(graph.outputs, graph(frames), strict=True))
            if engine == "inductor":
                found["scores"] = found["scores"] + 0.5
            return found

        return Call(run, lambda: closed.append(graph.outputs[0]))

    def elapsed(work):
        began = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - began)

    closed: list[str] = []
    monkeypatch.setattr(gpu_measure, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_measure, "PRODUCT", 64)
    monkeypatch.setattr(gpu_measure, "COPY", 1 << 16)
    monkeypatch.setattr(gpu_measure, "make_call", call)
    monkeypatch.setattr(gpu_measure, "_elapsed", elapsed)
    monkeypatch.setattr(gpu_measure, "make_model", lambda _: model)
    monkeypatch.setattr(
        gpu_measure, "build_ahead", lambda _, wanted, *__: dict.fromkeys(wanted, b"package")
    )
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(bench_gpu, "find_gpus", lambda: (H100,))
    return closed


def test_a_run_measures_checks_and_writes(on_the_cpu, tmp_path, capsys, monkeypatch):
    reasons = {"tensorrt": "tensorrt is not installed", "inductor": None, "eager": None}
    infos = [Namespace(name=name, reason=reason) for name, reason in reasons.items()]
    monkeypatch.setattr(bench_gpu, "available_engines", lambda: infos)
    options = Options(
        engines=tuple(reasons),
        precisions=("f16",),
        batches=(1, 8),
        native=(90, 160),
        repeats=3,
        json=tmp_path / "gpu.json",
    )
    assert bench_gpu.run(options) == 1  # an answer is wrong
    figures = json.loads((tmp_path / "gpu.json").read_text())
    found = {(r["engine"], tuple(r["frame"]), r["case"]): r for r in figures["rows"]}
    assert len(found) == len(figures["rows"]) == 2 * 2 * 2
    assert len(on_the_cpu) == 8
    for (engine, _, _), line in found.items():
        assert (line["wrong"] is not None) == (engine == "inductor")
        assert 0 < line["p50"] <= line["p95"]
        assert line["fps"] > 0
        assert line["share"] > 0
    assert figures["missing"][0] == "tensorrt: tensorrt is not installed"
    assert sum("batch 8" in line and "too little memory" in line for line in figures["missing"])
    assert figures["gpu"]["driver"] == H100.driver
    printed = capsys.readouterr().out
    assert "NVIDIA H100 80GB HBM3, driver 580.65.06, torch" in printed
    assert "f16: a large product" in printed
    assert "WRONG: scores: largest difference 0.5" in printed
    assert "quickest is eager in f16" in printed


def test_what_was_measured_before_a_crash_is_told_and_kept(
    on_the_cpu, tmp_path, capsys, monkeypatch
):
    infos = [Namespace(name=name, reason=None) for name in ("inductor", "eager")]
    monkeypatch.setattr(bench_gpu, "available_engines", lambda: infos)
    make = gpu_measure.make_call

    def crash(engine, *given):
        if engine == "eager":
            raise KeyboardInterrupt
        return make(engine, *given)

    monkeypatch.setattr(gpu_measure, "make_call", crash)
    options = Options(
        engines=("inductor", "eager"),
        precisions=("f16",),
        batches=(1,),
        native=(90, 160),
        repeats=3,
        json=tmp_path / "gpu.json",
    )
    with pytest.raises(KeyboardInterrupt):
        bench_gpu.run(options)
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [(row["engine"], row["case"]) for row in rows] == [
        ("inductor", "backbone"),
        ("inductor", "lite"),
    ]
    assert capsys.readouterr().out.count("WRONG: scores") == 2


def test_packages_are_built_ahead_and_failures_are_told(monkeypatch):
    def build(graph, batch, device, _):
        if batch < 2:
            raise EngineError("no") if batch else BrokenProcessPool
        return f"{type(graph).__name__} {graph.frame_size} {batch} {device}".encode()

    monkeypatch.setattr(gpu_packages, "build_package", build)
    monkeypatch.setattr(gpu_packages, "ProcessPoolExecutor", lambda n, *_, **__: ThreadPool(n))
    said: list[str] = []
    good, bad, lost = (Wanted("backbone", (90, 130), "f32", batch) for batch in (2, 1, 0))
    made = build_ahead("test_resnet", [good, bad, lost], "cpu", 2, said.append)
    assert made[good] == b"BackboneGraph (90, 130) 2 cpu"
    assert [str(made[bad]), str(made[lost])[:38]] == [
        "no",
        "inductor: a building process ended; bu",
    ]
    assert said[0] == "inductor: backbone, 130x90, batch 2, f32: compiled (1 of 3)"
    assert said[1].endswith("failed (2 of 3)")


def test_a_failure_comes_back_from_a_process_of_its_own():
    bad = Wanted("lite", (90, 130), "f99", 1)
    made = build_ahead("test_resnet", [bad], "cpu", 1, lambda _: None)
    assert "precision 'f99', allowed: f32" in str(made[bad])


def test_options_come_from_the_arguments(monkeypatch):
    asked = []
    monkeypatch.setattr(bench_gpu, "run", asked.append)
    monkeypatch.setattr("faulthandler.enable", lambda: None)  # pytest has its own
    monkeypatch.setattr(sys, "argv", ["bench_gpu", "--precisions", "bf16", "--json", "x"])
    with pytest.raises(SystemExit):
        bench_gpu.main()
    assert asked == [Options(precisions=["bf16"], json=Path("x"))]


def test_without_a_gpu_it_ends_with_one_line():
    environment = {"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench_gpu"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("nothing measured: ")
    assert done.stderr.count("\n") == 1

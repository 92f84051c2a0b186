"""What the benchmark of engines prints, and that its graphs are what they are called."""

from __future__ import annotations

from argparse import Namespace

from nem.bundle import open_bundle
from scripts.bench_engine import bench, report
from tests.nem.toys import tiny_backbone


def test_the_table_has_the_spread_and_the_ratios_that_were_asked_for():
    rows = {
        "backbone": {"p10": 4.0, "p50": 4.4, "iqr": 0.31},
        "lite": {"p10": 5.0, "p50": 5.5, "iqr": 0.42},
        "all heads": {"p10": 5.5, "p50": 6.0, "iqr": 0.53},
    }
    lines = report(rows, 1.35)
    assert lines[0].split() == ["ms", "p10", "median", "IQR"]
    assert [line.split()[-1] for line in lines[1:4]] == ["0.31", "0.42", "0.53"]
    assert lines[4:] == [
        "lite 1.250 x backbone (asked <= 1.35)",
        "all heads 1.100 x lite (asked <= 1.15)",
    ]


def test_a_graph_of_all_heads_runs_with_and_without_its_maps(capsys, monkeypatch):
    graph = open_bundle("nem-tiny").graph_path  # an export takes long
    monkeypatch.setattr("scripts.bench_engine.export_onnx", lambda model, path: graph)
    args = Namespace(cases=["all heads"], precision="f32", repeats=2)
    rows = bench("toy", lambda: tiny_backbone(size=160), {"width": 16}, args)
    assert list(rows) == ["backbone", "all heads"]
    assert all(row["p10"] > 0 for row in rows.values())
    assert "all heads" in capsys.readouterr().out

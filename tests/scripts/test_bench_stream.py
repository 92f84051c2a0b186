import pytest

from scripts.bench_stream import main, report


def row(fps):
    return {"fps": fps, "core_ms": 10.0, "efficiency": 0.95, "rss_mb": 300.0, "frames": 100}


def test_report_sets_measured_beside_asked():
    lines = report({"resnet50-lite": row(50.0), "resnet50:grad-cam": row(5.0)})
    assert "resnet50-lite / resnet50:grad-cam: 10.0 x (asked 9.0)" in lines
    assert "efficiency resnet50-lite: 0.95 (asked 0.93)" in lines


def test_report_leaves_out_ratios_it_can_not_know():
    assert not [line for line in report({"nem-tiny": row(200.0)}) if " x" in line]


def test_int8_wants_pictures(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench_stream", "--only", "nem-tiny:int8"])
    with pytest.raises(SystemExit):
        main()
    assert "int8 needs --calibrate PICTURES" in capsys.readouterr().err

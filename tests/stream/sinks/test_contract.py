"""What every sink promises, on all of them."""

from __future__ import annotations

import pytest

from stream.errors import SinkError
from stream.sinks import FileSink, NullSink, ScoresSink, WindowSink
from tests.builders import make_explanation, make_frame
from tests.stream.sinks.fake_screen import FakeScreen
from tests.stream.sinks.reading import names

SINKS = {
    "mp4": lambda folder: FileSink(folder / "out.mp4"),
    "mkv": lambda folder: FileSink(folder / "out.mkv"),
    "scores": lambda folder: ScoresSink(folder / "out.jsonl"),
    "stdout": lambda folder: ScoresSink("-"),
    "window": lambda folder: WindowSink(screen=FakeScreen()),
    "null": lambda folder: NullSink(),
}
OUTPUTS = {"mp4": "out.mp4", "mkv": "out.mkv", "scores": "out.jsonl"}


@pytest.fixture(params=SINKS)
def kind(request):
    return request.param


@pytest.fixture
def sink(kind, tmp_path):
    made = SINKS[kind](tmp_path)
    yield made
    made.close(whole=False)


def write(sink, count):
    for index in range(count):
        sink.write(make_frame(index=index), make_explanation())


def test_takes_frames_in_order_and_closes_twice(sink, kind, tmp_path):
    write(sink, 5)
    assert not sink.stop_requested()
    sink.close()
    sink.close()
    sink.close(whole=False)
    assert names(tmp_path) == ([OUTPUTS[kind]] if kind in OUTPUTS else [])


def test_without_a_frame_nothing_is_left(sink, tmp_path):
    sink.close()
    assert names(tmp_path) == []


def test_cut_short_never_looks_whole(sink, kind, tmp_path):
    write(sink, 5)
    sink.close(whole=False)
    sink.close(whole=True)
    assert names(tmp_path) == ([OUTPUTS[kind] + ".partial"] if kind in OUTPUTS else [])


def test_an_error_in_the_block_is_a_run_cut_short(kind, tmp_path):
    with pytest.raises(KeyError), SINKS[kind](tmp_path) as sink:  # noqa: PT012
        write(sink, 3)
        raise KeyError
    assert names(tmp_path) == ([OUTPUTS[kind] + ".partial"] if kind in OUTPUTS else [])


def test_frame_and_explanation_stay_as_they_are(sink):
    frame, explanation = make_frame(33, 47), make_explanation()
    arrays = [frame.y, frame.u, frame.v, explanation.mask, explanation.scores]
    before = [array.copy() for array in arrays]
    sink.write(frame, explanation)
    assert all((now == then).all() for now, then in zip(arrays, before, strict=True))


def test_interrupt_is_always_allowed(sink):
    sink.interrupt()
    write(sink, 2)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_existing_output_is_kept(kind, tmp_path):
    kept = tmp_path / OUTPUTS[kind]
    kept.write_bytes(b"mine")
    with pytest.raises(SinkError, match=r"exists.*--overwrite") as refused:
        SINKS[kind](tmp_path)
    assert refused.value.exit_code == 5
    assert kept.read_bytes() == b"mine"
    assert names(tmp_path) == [kept.name]

"""Closing while another thread is inside the decoder."""

import threading

import pytest

from stream.errors import SourceError
from stream.sources.file import FileSource
from stream.sources.pulled import PulledSource
from tests.builders import make_clip, make_frame


class Slow(PulledSource):
    """Its second read waits until the test lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = threading.Event()
        self.go = threading.Event()
        self.reads = 0
        self.freed: list[int] = []

    def _read(self):
        self.reads += 1
        if self.reads == 2:
            self.inside.set()
            assert self.go.wait(10)
        if self.reads == 3:
            raise SourceError("broken")
        return make_frame(index=self.reads)

    def _free(self):
        self.freed.append(self.reads)


def test_nothing_is_freed_under_a_reader():
    source, got = Slow(), []
    reader = threading.Thread(target=lambda: got.extend(frame.index for frame in source))
    reader.start()
    assert source.inside.wait(10)
    source.close()
    assert source.freed == []
    source.go.set()
    reader.join(10)
    assert not reader.is_alive()
    assert got == [1]
    assert source.freed == [2]


def test_an_error_frees_once_and_ends():
    source = Slow()
    source.go.set()
    with pytest.raises(SourceError, match="broken"):
        list(source)
    source.close()
    assert source.freed == [3]
    assert list(source) == []


def test_a_file_can_be_closed_at_any_moment(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", frames=200)
    for stop_at in (1, 7, 40):
        source, errors, reached = FileSource(clip), [], threading.Event()

        def read(source=source, errors=errors, reached=reached, stop_at=stop_at):
            try:
                for frame in source:
                    if frame.index == stop_at:
                        reached.set()
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        assert reached.wait(10)
        source.close()
        reader.join(10)
        assert not reader.is_alive()
        assert errors == []

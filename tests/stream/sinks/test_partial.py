from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from stream.errors import SinkError, UsageError
from stream.sinks.partial import PartialFile
from tests.stream.sinks.reading import names


def test_gets_its_name_when_finished(tmp_path):
    output = PartialFile(tmp_path / "out.bin")
    output.file.write(b"abc")
    assert names(tmp_path) == ["out.bin.partial"]
    output.finish(b"def")
    assert names(tmp_path) == ["out.bin"]
    assert output.path.read_bytes() == b"abcdef"


def test_left_and_discarded(tmp_path):
    left, gone = PartialFile(tmp_path / "left"), PartialFile(tmp_path / "gone")
    left.file.write(b"abc")
    left.leave()
    left.leave()
    gone.discard()
    assert names(tmp_path) == ["left.partial"]
    assert left.partial.read_bytes() == b"abc"


def test_overwrite_replaces_output_and_leftover_only_at_the_end(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    path.with_name("out.partial").write_bytes(b"much longer than the new content")
    output = PartialFile(path, overwrite=True)
    output.file.write(b"new")
    assert path.read_bytes() == b"old"
    output.finish()
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


def test_overwrite_writes_through_no_link(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / "out.partial").symlink_to(other)
    output = PartialFile(tmp_path / "out", overwrite=True)
    output.file.write(b"new")
    output.finish()
    assert other.read_bytes() == b"precious"
    assert not output.path.is_symlink()
    assert output.path.read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_overwrite_waits_for_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "out.partial")
    output = PartialFile(tmp_path / "out", overwrite=True)
    output.finish(b"new")
    assert output.path.read_bytes() == b"new"


def test_a_leftover_is_not_thrown_away(tmp_path):
    leftover = tmp_path / "out.partial"
    leftover.write_bytes(b"hours of work")
    with pytest.raises(SinkError, match=r"out\.partial: left by .* --overwrite"):
        PartialFile(tmp_path / "out")
    assert leftover.read_bytes() == b"hours of work"


def test_a_name_taken_meanwhile_is_kept(tmp_path):
    output = PartialFile(tmp_path / "out")
    output.file.write(b"new")
    output.path.write_bytes(b"theirs")
    with pytest.raises(SinkError, match="exists"):
        output.finish()
    assert output.path.read_bytes() == b"theirs"
    assert output.partial.read_bytes() == b"new"


def test_of_two_runs_that_overwrite_the_later_alone_gets_the_name(tmp_path):
    unused, earlier = (PartialFile(tmp_path / "out", overwrite=True) for _ in range(2))
    earlier.file.write(b"the first half of much more")
    later = PartialFile(tmp_path / "out", overwrite=True)
    later.file.write(b"new")
    with pytest.raises(SinkError, match=r"out\.partial: was removed .* or replaced"):
        earlier.finish(b", and the second half")
    unused.discard()
    assert names(tmp_path) == ["out.partial"]
    later.finish()
    assert names(tmp_path) == ["out"]
    assert later.path.read_bytes() == b"new"


def test_last_bytes_that_find_no_room_leave_the_rest_as_told(tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    output = PartialFile(tmp_path / "out")
    output.file.write(b"some")
    output.file.flush()
    file, output.file = output.file, SimpleNamespace(write=full, close=output.file.close)
    with pytest.raises(SinkError, match=r"No space left .* stays in out\.partial"):
        output.finish(b" more")
    assert file.closed
    assert output.partial.read_bytes() == b"some"


@pytest.mark.parametrize("link", ["itself", "dotted", "symlink", "hardlink"])
def test_refuses_to_write_over_an_input(tmp_path, link):
    source = tmp_path / "in.mp4"
    source.write_bytes(b"video")
    (tmp_path / "sub").mkdir()
    other = tmp_path / "other.mp4"
    path = {"itself": source, "dotted": tmp_path / "sub" / ".." / "in.mp4"}.get(link, other)
    if link == "symlink":
        other.symlink_to(source)
    elif link == "hardlink":
        other.hardlink_to(source)
    with pytest.raises(UsageError, match=r"also the input .*in\.mp4") as refused:
        PartialFile(path, overwrite=True, inputs=[source])
    assert refused.value.exit_code == 2
    assert source.read_bytes() == b"video"


def test_refuses_an_input_that_has_the_partial_name(tmp_path):
    source = tmp_path / "out.mp4.partial"
    source.write_bytes(b"video")
    with pytest.raises(UsageError, match="also the input"):
        PartialFile(tmp_path / "out.mp4", overwrite=True, inputs=[source])
    assert source.read_bytes() == b"video"


def test_a_dangling_link_counts_as_existing(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SinkError, match="exists"):
        PartialFile(tmp_path / "out")


def test_refuses_a_missing_directory(tmp_path):
    with pytest.raises(SinkError, match=r"no directory .*nowhere; create it"):
        PartialFile(tmp_path / "nowhere" / "out")


def test_refuses_a_directory(tmp_path):
    with pytest.raises(SinkError, match="is a directory"):
        PartialFile(tmp_path, overwrite=True)


def test_refuses_where_it_may_not_write(tmp_path, monkeypatch):
    def denied(*_args, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(SinkError, match="can't write here: Permission denied"):
        PartialFile(tmp_path / "out")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_refuses_a_read_only_directory(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    with pytest.raises(SinkError, match="Permission denied"):
        PartialFile(folder / "out")


def test_refuses_a_name_too_long(tmp_path):
    with pytest.raises(SinkError, match="can't write here"):
        PartialFile(tmp_path / ("x" * 252))


def test_a_pipe_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "out")
    with pytest.raises(SinkError, match="is a device or pipe"):
        PartialFile(tmp_path / "out", overwrite=True)
    assert names(tmp_path) == ["out"]


def test_refuses_a_folder_that_may_not_be_entered(tmp_path, monkeypatch):
    def denied(_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.exists", denied)
    with pytest.raises(SinkError, match="can't write here: Permission denied"):
        PartialFile(tmp_path / "out")

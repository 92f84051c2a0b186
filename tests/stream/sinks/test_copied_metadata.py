"""What is said of a file and of its pictures is found again, time code included."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest

from stream.sinks import FileSink
from tests.builders import copy_packets, make_clip, make_explanation, make_frame
from tests.stream.sinks.reading import read_packets, read_video

FORMATS = {"mp4": "mp4", "mov": "mov", "mkv": "matroska"}
TIMECODE = "01:02:03:04"
PHONE = {"com.apple.quicktime.make": "Apple", "com.apple.quicktime.model": "iPhone"}
SUFFIXES = pytest.mark.parametrize("suffix", sorted(FORMATS))


def described(path, *, of_pictures=None, of_file=None, marks=None, **options):
    """A clip with sound, this said of its pictures and of itself, and its pictures so marked."""
    clip = make_clip(path.with_name("raw.mkv"), frames=10, audio=True)
    with av.open(str(clip)) as old, av.open(str(path), "w", container_options=options) as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        streams[0].metadata.update(of_pictures or {})
        if marks is not None:
            streams[0].disposition = marks
        new.metadata.update(of_file or {})
        copy_packets(old, streams)
    return path


def annotate(source, output):
    with FileSink(output, copy_from=source) as sink:
        for index in range(10):
            sink.write(make_frame(64, 96, index=index), make_explanation())
    return sink


def said(path):
    """Of the file and of its pictures, names in small letters."""
    with av.open(str(path)) as found:
        both = found.metadata, found.streams.video[0].metadata
        return tuple({name.lower(): value for name, value in tags.items()} for tags in both)


@SUFFIXES
def test_a_time_code_costs_no_picture_and_is_kept(tmp_path, suffix):
    clip = described(tmp_path / "in.mov", of_pictures={"timecode": TIMECODE})
    with av.open(str(clip)) as source:
        assert [s.type for s in source.streams] == ["video", "audio", "data"]
    out = tmp_path / f"out.{suffix}"
    assert annotate(clip, out).notes == ()
    assert read_video(out).indices == list(range(10))
    before, after = ([data for _, data in read_packets(p, "audio")] for p in (clip, out))
    assert before == after
    assert said(out)[1]["timecode"] == TIMECODE


@pytest.mark.parametrize("suffix", ["mov", "mkv"])
def test_the_reel_of_a_time_code_is_kept(tmp_path, suffix):
    of_pictures = {"timecode": TIMECODE, "reel_name": "A001"}
    clip = described(tmp_path / "in.mov", of_pictures=of_pictures)
    annotate(clip, tmp_path / f"out.{suffix}")
    with av.open(str(tmp_path / f"out.{suffix}")) as out:  # MOV has it in the time code's track
        assert "A001" in [reel for s in out.streams for reel in s.metadata.values()]


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_a_time_code_is_that_of_the_source_where_stamps_are_coarse(tmp_path, suffix):
    clip = described(tmp_path / "in.mkv", of_pictures={"timecode": "01:02:03:45"})
    out = tmp_path / f"out.{suffix}"
    with FileSink(out, copy_from=clip, fps=Fraction(60)) as sink:
        for index, pts in enumerate([0, 17, 33, 50]):
            frame = make_frame(64, 96, index=index, pts=pts, time_base=Fraction(1, 1000))
            sink.write(frame, make_explanation())
    assert said(out)[1]["timecode"] == "01:02:03:45"


@SUFFIXES
def test_what_is_said_of_the_pictures_is_kept(tmp_path, suffix):
    clip = described(
        tmp_path / "in.mkv",
        of_pictures={
            "language": "fra",
            "title": "Gate 7",
            "ALPHA_MODE": "1",
            "BPS-eng": "9",
            "DURATION-eng": "00:00:09",
            "ENCODER": "me",
        },
    )
    annotate(clip, tmp_path / f"out.{suffix}")
    pictures = said(tmp_path / f"out.{suffix}")[1]
    assert "Gate 7" in pictures.values()
    assert pictures["language"] == "fra"
    # How they were stored they no longer are.
    assert not {"alpha_mode", "bps-eng", "duration-eng", "encoder"} & set(pictures)


def test_a_language_keeps_its_place_in_mov_by_either_of_its_names(tmp_path):
    found = {}
    for spoken in ("deu", "ger", "fre", "fra", "zho", "chi", "swe", "spa"):
        clip = described(tmp_path / "in.mkv", of_pictures={"language": spoken})
        with FileSink(tmp_path / "out.mov", copy_from=clip, overwrite=True) as sink:
            sink.write(make_frame(64, 96), make_explanation())
        found[spoken] = said(tmp_path / "out.mov")[1].get("language")
    assert found["deu"] == found["ger"] is not None
    assert found["fre"] == found["fra"] is not None
    assert found["zho"] == found["chi"] is not None
    assert found["swe"] is not None
    assert found["spa"] == "spa"


@pytest.mark.parametrize(("of_mov", "usual"), [("hr ", "hrv"), ("iri", "gle"), ("sve", "swe")])
def test_a_name_of_a_language_that_only_mov_has_is_the_usual_one_elsewhere(tmp_path, of_mov, usual):
    clip = described(tmp_path / "in.mov", of_pictures={"language": of_mov})
    for suffix, name in (("mp4", usual), ("mkv", usual), ("mov", of_mov)):
        assert annotate(clip, tmp_path / f"out.{suffix}").notes == ()
        assert said(tmp_path / f"out.{suffix}")[1]["language"] == name
    annotate(tmp_path / "out.mkv", tmp_path / "back.mov")
    assert said(tmp_path / "back.mov")[1]["language"] == of_mov


def test_a_language_that_has_no_number_is_told_of(tmp_path):
    clip = described(tmp_path / "in.mkv", of_pictures={"language": "yue"})
    [note] = annotate(clip, tmp_path / "out.mov").notes
    assert note == "language yue of the video track left out: .mov can't hold it"
    assert annotate(clip, tmp_path / "out.mp4").notes == ()
    assert said(tmp_path / "out.mp4")[1]["language"] == "yue"


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_what_a_phone_says_of_a_file_is_kept(tmp_path, suffix):
    clip = described(tmp_path / "in.mov", of_file=PHONE, movflags="use_metadata_tags")
    annotate(clip, tmp_path / f"out.{suffix}")
    assert PHONE.items() <= said(tmp_path / f"out.{suffix}")[0].items()


@pytest.mark.parametrize(
    ("suffix", "name", "value"), [("mov", "comment", "x" * 70_000), ("mp4", "hd_video", "no")]
)
def test_what_the_usual_place_would_cut_or_change_is_kept(tmp_path, suffix, name, value):
    clip = described(tmp_path / "in.mkv", of_file={name: value})
    annotate(clip, tmp_path / f"out.{suffix}")
    assert said(tmp_path / f"out.{suffix}")[0][name] == value


@pytest.mark.parametrize("source", ["mp4", "mkv"])
def test_a_title_stays_where_all_players_look(tmp_path, source):
    clip = described(tmp_path / f"in.{source}", of_file={"title": "A film"})
    clip.write_bytes(clip.read_bytes().replace(b"Lavf", b"Mine"))  # another program's file
    annotate(clip, tmp_path / "out.mp4")
    assert b"\xa9nam" in (tmp_path / "out.mp4").read_bytes()


@pytest.mark.parametrize("source", sorted(FORMATS))
def test_the_title_of_a_track_has_the_name_of_the_container(tmp_path, source):
    clip = described(tmp_path / f"in.{source}", of_pictures={"title": "Gate 7"})
    annotate(clip, tmp_path / "out.mkv")
    assert said(tmp_path / "out.mkv")[1]["title"] == "Gate 7"


def test_marks_of_the_pictures_are_kept(tmp_path):
    clip = described(tmp_path / "in.mkv", marks=av.stream.Disposition.original)
    annotate(clip, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as out:
        assert out.streams.video[0].disposition & av.stream.Disposition.original

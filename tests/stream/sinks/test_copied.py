"""Sound, subtitles and the rest arrive as they were."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from stream.errors import SinkError, SourceError
from stream.sinks import FileSink
from stream.sinks.copied import DAMAGED
from stream.sources import open_source
from stream.sources.reading import BAD_RUN
from stream.sources.timeline import Timeline
from tests.builders import DATA, copy_packets, make_clip, make_explanation, make_frame
from tests.stream.sinks.reading import names, read_packets, read_video

EXPLANATION = make_explanation()
CAR = DATA / "videos" / "car-detection.mp4"
TICK = Fraction(1, 1000)


def annotate(source, output, frames=50, close=True, **options):
    """Write `frames` frames of 1/25 s with what `source` has besides its video."""
    sink = FileSink(output, copy_from=source, **options)
    for index in range(frames):
        sink.write(make_frame(64, 96, index=index), EXPLANATION)
    if close:
        sink.close()
    return sink


def remuxed(source, target, container, *, chapters=False, attachment=False):
    """`source` in another container, with titles, a language and the extras asked for."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=container) as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for stream in streams.values():
            if stream.type == "audio":
                stream.metadata.update(language="fra", title="Commentaire")
                stream.disposition = av.stream.Disposition.comment
        if attachment:
            new.add_attachment("font.ttf", "font/ttf", b"not a font")
        if chapters:
            new.set_chapters(
                [
                    {
                        "id": i,
                        "start": i * 1000,
                        "end": (i + 1) * 1000,
                        "time_base": TICK,
                        "metadata": {"title": f"part {i}"},
                    }
                    for i in range(2)
                ]
            )
        new.metadata["title"] = "A film"
        copy_packets(old, streams)
    return target


@pytest.mark.parametrize("source", ["mp4", "mkv"])
@pytest.mark.parametrize("output", ["mp4", "mov", "mkv"])
def test_sound_packets_are_byte_equal_and_in_time(tmp_path, source, output):
    clip = make_clip(tmp_path / f"in.{source}", frames=50, audio=True)
    out = tmp_path / f"out.{output}"
    annotate(clip, out)
    before, after = read_packets(clip, "audio"), read_packets(out, "audio")
    assert len(before) > 90
    assert [data for _, data in after] == [data for _, data in before]
    for (now, _), (then, _) in zip(after, before, strict=True):
        # Where MP4 keeps the run-in of the sound, Matroska has no time.
        assert abs(now - (max(then, 0) if (source, output) == ("mp4", "mkv") else then)) <= TICK
    assert read_video(out).indices == list(range(50))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_subtitles_are_kept(tmp_path, suffix):
    clip = make_clip(tmp_path / f"in.{suffix}", frames=50, audio=True, subtitle="good morning")
    annotate(clip, tmp_path / f"out.{suffix}")
    [(time, text)] = [
        (time, data)
        for time, data in read_packets(tmp_path / f"out.{suffix}", "subtitle")
        if b"morning" in data
    ]
    assert time == 0
    assert (time, text) in read_packets(clip, "subtitle")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_language_titles_marks_and_chapters_are_kept(tmp_path, suffix):
    clip = make_clip(tmp_path / "raw.mkv", frames=50, audio=True)
    clip = remuxed(
        clip, tmp_path / f"in.{suffix}", {"mkv": "matroska"}.get(suffix, suffix), chapters=True
    )
    sink = annotate(clip, tmp_path / f"out.{suffix}")
    assert sink.notes == ()
    with av.open(str(tmp_path / f"out.{suffix}")) as out:
        audio = out.streams.audio[0]
        assert audio.language == "fra"
        assert "Commentaire" in audio.metadata.values()
        assert audio.disposition & av.stream.Disposition.comment
        assert out.metadata["title"] == "A film"
        chapters = [
            (c["metadata"]["title"], float(c["start"] * c["time_base"])) for c in out.chapters()
        ]
    assert chapters == [("part 0", 0.0), ("part 1", pytest.approx(1.0, abs=0.002))]


def test_the_picture_is_upright_whatever_the_source_said(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", rotation=90, audio=True, frames=50)
    annotate(clip, tmp_path / "out.mp4")
    assert read_video(clip).first.rotation != 0
    assert read_video(tmp_path / "out.mp4").first.rotation == 0


def test_an_attachment_is_kept_or_said_to_be_lost(tmp_path):
    clip = make_clip(tmp_path / "raw.mkv", frames=50, audio=True)
    clip = remuxed(clip, tmp_path / "in.mkv", "matroska", attachment=True)
    annotate(clip, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as out:
        [attached] = [s for s in out.streams if s.type == "attachment"]
        assert attached.data == b"not a font"
    sink = annotate(clip, tmp_path / "out.mp4")
    [note] = sink.notes
    assert note.startswith("attachment track 2")
    assert ".mp4 can't hold it" in note


@pytest.mark.parametrize(
    ("source", "output", "cure"), [("mkv", "mp4", ".mkv"), ("mp4", "mkv", ".mp4")]
)
def test_a_track_the_container_cannot_hold_is_refused_at_once(tmp_path, source, output, cure):
    clip = make_clip(tmp_path / f"in.{source}", subtitle="hello", audio=True)
    with pytest.raises(
        SinkError, match=rf"subtitle track 2 .* can't be stored .* write to \{cure}"
    ):
        FileSink(tmp_path / f"out.{output}", copy_from=clip)
    assert names(tmp_path) == [f"in.{source}"]


def test_broadcast_sound_loses_its_packet_headers_only(tmp_path):
    clip = make_clip(tmp_path / "raw.mp4", frames=50, audio=True)
    broadcast = remuxed(clip, tmp_path / "in.ts", "mpegts")
    for name in ("out.mp4", "out.mkv"):
        annotate(broadcast, tmp_path / name)
        data = [data for _, data in read_packets(tmp_path / name, "audio")]
        assert data == [data for _, data in read_packets(clip, "audio")]
        with av.open(str(tmp_path / name)) as out:
            assert sum(f.samples for f in out.decode(audio=0)) == 1024 * len(data)


def test_stamps_that_start_over_do_not_end_the_run(tmp_path):
    clip = make_clip(tmp_path / "raw.mp4", frames=50, audio=True)
    broadcast = remuxed(clip, tmp_path / "in.ts", "mpegts")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(broadcast.read_bytes() * 2)
    annotate(joined, tmp_path / "out.mp4", frames=100)
    once = len(read_packets(clip, "audio"))
    assert len(read_packets(tmp_path / "out.mp4", "audio")) == 2 * once


def test_cut_short_the_sound_ends_with_the_picture(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", frames=100, audio=True)
    sink = annotate(clip, tmp_path / "out.mp4", frames=25, close=False)
    sink.close(whole=False)
    last = max(time for time, _ in read_packets(tmp_path / "out.mp4.partial", "audio"))
    assert 0.8 <= last <= 1.0


def test_sound_longer_than_the_picture_is_kept_whole(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", frames=100, audio=True)
    annotate(clip, tmp_path / "out.mp4", frames=25)
    assert read_packets(tmp_path / "out.mp4", "audio") == read_packets(clip, "audio")


def test_of_a_damaged_file_what_can_be_read_is_kept(tmp_path):
    clip = make_clip(tmp_path / "whole.mkv", frames=100, audio=True)
    damaged = tmp_path / "in.mkv"
    damaged.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    annotate(damaged, tmp_path / "out.mkv", frames=25)
    kept, all_of_it = (read_packets(p, "audio") for p in (tmp_path / "out.mkv", clip))
    assert 20 < len(kept) < len(all_of_it)
    assert kept == all_of_it[: len(kept)]


def test_a_source_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "in.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(SourceError, match=r"in\.mp4: not a video that can be read"):
        FileSink(tmp_path / "out.mp4", copy_from=tmp_path / "in.mp4")
    assert names(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize("errors", [5, BAD_RUN])
def test_sound_that_cannot_be_read_on_ends_early_and_is_told(tmp_path, monkeypatch, errors):
    left = [errors]

    class Broken(Timeline):
        def demux(self, streams):
            if left[0]:
                left[0] -= 1
                raise av.error.InvalidDataError(1, "broken")
            return super().demux(streams)

    monkeypatch.setattr("stream.sinks.copied.Timeline", Broken)
    clip = make_clip(tmp_path / "in.mp4", frames=50, audio=True)
    sink = annotate(clip, tmp_path / "out.mkv")
    assert f"copied tracks: {errors} {DAMAGED}" in sink.notes
    if errors == BAD_RUN:
        assert f"sound and subtitles end early: {clip} is damaged (broken)" in sink.notes
    else:
        assert len(read_packets(tmp_path / "out.mkv", "audio")) > 90


def test_the_source_is_closed_with_the_output(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", frames=10, audio=True)
    files = Path("/proc/self/fd")
    before = len(list(files.iterdir()))
    annotate(clip, tmp_path / "out.mp4", frames=10)
    annotate(clip, tmp_path / "cut.mp4", frames=10, close=False).close(whole=False)
    assert len(list(files.iterdir())) == before


def test_a_silent_file_stays_silent(tmp_path):
    clip = make_clip(tmp_path / "in.mp4")
    annotate(clip, tmp_path / "out.mp4", frames=10)
    with av.open(str(tmp_path / "out.mp4")) as out:
        assert [s.type for s in out.streams] == ["video"]


@pytest.mark.skipif(not CAR.exists(), reason=f"no {CAR}")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_real_clip_comes_through_whole(tmp_path, suffix):
    out, stamps = tmp_path / f"out.{suffix}", []
    with open_source(str(CAR)) as source, FileSink(out, copy_from=source.info.path) as sink:
        for frame in source:
            sink.write(frame, EXPLANATION)
            stamps.append(frame.pts * frame.time_base)
    video = read_video(out)
    tolerance = 0 if suffix == "mp4" else TICK
    assert len(video.seconds) == len(stamps) == 377
    assert max(abs(a - b) for a, b in zip(video.seconds, stamps, strict=True)) <= tolerance
    before, after = read_packets(CAR, "audio"), read_packets(out, "audio")
    assert [data for _, data in after] == [data for _, data in before]
    assert max(abs(a - b) for (a, _), (b, _) in zip(after, before, strict=True)) <= tolerance

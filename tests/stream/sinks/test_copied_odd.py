"""Tracks that can't be read, damaged, short, late or cut: kept as far as they can be."""

from fractions import Fraction

import av
import numpy as np
import pytest

from stream.errors import SinkError
from stream.sinks import FileSink
from tests.builders import copy_packets, make_clip, make_explanation, make_frame
from tests.stream.sinks.reading import read_packets


def annotate(source, output, frames=50):
    with FileSink(output, copy_from=source) as sink:
        for index in range(frames):
            sink.write(make_frame(64, 96, index=index), make_explanation())
        sink.close()
        return sink.notes


def remuxed(source, target, moved=0, sound_from=0):
    """`source` with all stamps moved by so many seconds, and the sound by some more."""

    def move(packet):
        late = sound_from if packet.stream.type == "audio" else 0
        ticks = round((moved + late) / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return True

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copy_packets(old, {s.index: new.add_stream_from_template(s) for s in old.streams}, move)
    return target


@pytest.mark.parametrize(
    ("known", "unknown", "track"), [(b"mp4a", b"mha1", "audio"), (b"tx3g", b"stpp", "subtitle")]
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_track_without_a_decoder_is_left_out(tmp_path, known, unknown, track, suffix):
    wanted = {"audio": True} if track == "audio" else {"subtitle": "hello"}
    clip = make_clip(tmp_path / "in.mp4", **wanted)
    data = clip.read_bytes()
    assert known in data
    clip.write_bytes(data.replace(known, unknown).replace(b"esds", b"free"))
    [note] = annotate(clip, tmp_path / f"out.{suffix}", frames=10)
    assert note.startswith(f"{track} track 1 (unknown) left out: this FFmpeg has no decoder")


def test_a_damaged_packet_costs_itself_only(tmp_path):
    clip = remuxed(make_clip(tmp_path / "raw.mp4", frames=50, audio=True), tmp_path / "in.ts")
    data = bytearray(clip.read_bytes())
    packets = [i for i in range(0, len(data), 188) if b"\0\0\1\xc0" in data[i : i + 30]]
    header = data.index(b"\xff\xf1", packets[40])
    data[header + 3 : header + 6] = bytes(3)
    before = read_packets(clip, "audio")
    clip.write_bytes(data)
    assert annotate(clip, tmp_path / "out.mkv") == ("copied tracks: 1 damaged packet left out",)
    after = read_packets(tmp_path / "out.mkv", "audio")
    assert len(after) == len(before) - 1
    assert abs(after[-1][0] - before[-1][0]) < 0.01


def short_packets(path, seconds=4):
    """1,200 pieces of sound a second, as TrueHD has, with the millisecond stamps of Matroska."""
    make_clip(path.with_suffix(".mp4"), frames=25 * seconds)
    with av.open(str(path.with_suffix(".mp4"))) as old, av.open(str(path), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        sound = new.add_stream("pcm_s16le", rate=48000, layout="mono")
        copy_packets(old, {0: video})
        for start in range(0, seconds * 48000, 40):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 40), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            new.mux(sound.encode(frame))
    return path


@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_short_packets_keep_their_time(tmp_path, suffix):
    clip = short_packets(tmp_path / "in.mkv")
    notes = annotate(clip, tmp_path / f"out.{suffix}", frames=100)
    before, after = (read_packets(p, "audio") for p in (clip, tmp_path / f"out.{suffix}"))
    assert b"".join(data for _, data in after) == b"".join(data for _, data in before)
    assert abs(after[-1][0] - before[-1][0]) < 0.02
    assert not notes or suffix == "mov"


def test_subtitles_of_one_moment_stay_there(tmp_path):
    clip = tmp_path / "in.mkv"
    make_clip(tmp_path / "raw.mkv", frames=50)
    with av.open(str(tmp_path / "raw.mkv")) as old, av.open(str(clip), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        text = new.add_mux_stream("subrip")
        copy_packets(old, {0: video})
        for number in range(40):
            line = av.Packet(f"sign {number}".encode())
            line.stream, line.time_base = text, Fraction(1, 1000)
            line.pts = line.dts = 500
            line.duration = 1000
            new.mux(line)
    assert annotate(clip, tmp_path / "out.mkv") == ()
    assert read_packets(tmp_path / "out.mkv", "subtitle") == read_packets(clip, "subtitle")


def test_sound_that_an_edit_list_cuts_away_is_not_moved_into_matroska(tmp_path):
    raw = make_clip(tmp_path / "raw.mp4", frames=100, audio=True, options={"g": "25"})
    clip = remuxed(raw, tmp_path / "in.mp4", moved=-2)
    annotate(clip, tmp_path / "out.mkv")
    with av.open(str(clip)) as old, av.open(str(tmp_path / "out.mkv")) as new:
        heard = [sum(f.samples for f in file.decode(audio=0)) for file in (old, new)]
    assert abs(heard[1] - heard[0]) <= 5 * 1024
    times = [float(time) for time, _ in read_packets(tmp_path / "out.mkv", "audio")]
    assert sum(time < 0.1 for time in times) < 12
    assert times == sorted(times)


def test_sound_that_begins_late_is_found(tmp_path):
    raw = make_clip(tmp_path / "raw.mp4", frames=300, audio=True)
    clip = remuxed(raw, tmp_path / "in.ts", sound_from=9)
    assert annotate(clip, tmp_path / "out.mkv", frames=300) == ()
    assert len(read_packets(tmp_path / "out.mkv", "audio")) > 500


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_title_in_an_old_encoding(tmp_path, suffix):
    clip, raw = tmp_path / f"in.{suffix}", make_clip(tmp_path / "raw.mp4", codec="mpeg4")
    with av.open(str(raw)) as old, av.open(str(clip), "w") as new:
        new.metadata["title"] = "Caf@ de Paris"
        video = new.add_stream_from_template(old.streams.video[0])
        copy_packets(old, {0: video})
    clip.write_bytes(clip.read_bytes().replace(b"Caf@", b"Caf\xe9"))
    annotate(clip, tmp_path / "out.mkv", frames=5)
    with av.open(str(tmp_path / "out.mkv")) as out:
        assert out.metadata["title"] == "Caf\N{REPLACEMENT CHARACTER} de Paris"


def test_a_colon_in_the_name_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = make_clip(tmp_path / "raw.mp4", audio=True).rename(tmp_path / "http:x 12:30.mp4")
    annotate(clip.relative_to(tmp_path), tmp_path / "out.mp4", frames=5)
    assert read_packets(tmp_path / "out.mp4", "audio") == read_packets(clip, "audio")


@pytest.mark.parametrize(("cover", "what"), [(False, "video track 1"), (True, "cover picture 1")])
def test_further_pictures_are_told_to_be_left_out(tmp_path, cover, what):
    clip = tmp_path / "in.mp4"
    with av.open(str(clip), "w") as out:
        for index in range(2):
            video = out.add_stream("mjpeg", rate=25)
            video.width, video.height, video.pix_fmt = 96, 64, "yuvj420p"
            if index and cover:
                video.disposition = av.stream.Disposition.attached_pic
        out.start_encoding()
        for index in range(5):
            for video in list(out.streams)[: 1 if cover and index else 2]:
                frame = av.VideoFrame(96, 64, "yuvj420p")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                out.mux(video.encode(frame))
    assert annotate(clip, tmp_path / "out.mp4", frames=5) == (
        f"{what} left out: one track is explained",
    )


def test_sound_may_come_from_a_file_without_pictures(tmp_path):
    clip = make_clip(tmp_path / "in.m4a", video=False, audio=True)
    assert annotate(clip, tmp_path / "out.mp4", frames=10) == ()
    assert read_packets(tmp_path / "out.mp4", "audio") == read_packets(clip, "audio")


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_data_that_is_not_in_the_index_is_told_of(tmp_path, suffix):
    clip = tmp_path / "in.ts"
    make_clip(tmp_path / "raw.mp4", frames=10, audio=True)
    with av.open(str(tmp_path / "raw.mp4")) as old, av.open(str(clip), "w") as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        marks = new.add_mux_stream("timed_id3")
        copy_packets(old, streams)
        mark = av.Packet(b"ID3")
        mark.stream, mark.time_base, mark.pts, mark.dts = marks, Fraction(1, 1000), 300, 300
        new.mux(mark)
    [note] = annotate(clip, tmp_path / f"out.{suffix}", frames=10)
    assert note == f"data track 2 (timed_id3) left out: .{suffix} can't hold it"


def raw_sound(path, channels):
    """A clip whose sound is plain samples, with no word on which channel is which."""
    make_clip(path.with_suffix(".mp4"), frames=10)
    with av.open(str(path.with_suffix(".mp4"))) as old, av.open(str(path), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        layout = av.AudioLayout(f"{channels}C")
        sound = new.add_stream("pcm_s16le", rate=48000, layout=layout)
        copy_packets(old, {0: video})
        for number in range(10):
            piece = av.Packet(bytes([number, 0]) * 1920 * channels)
            piece.stream, piece.time_base = sound, Fraction(1, 48000)
            piece.pts = piece.dts = 1920 * number
            new.mux(piece)
    return path


@pytest.mark.parametrize(("channels", "named"), [(2, "stereo"), (6, "5.1")])
def test_plain_samples_are_kept_in_mp4(tmp_path, channels, named):
    clip = raw_sound(tmp_path / "in.mkv", channels)
    annotate(clip, tmp_path / "out.mp4", frames=10)
    before, after = (read_packets(p, "audio") for p in (clip, tmp_path / "out.mp4"))
    assert b"".join(data for _, data in after) == b"".join(data for _, data in before)
    with av.open(str(tmp_path / "out.mp4")) as new:
        assert new.streams.audio[0].layout.name == named


def test_samples_of_channels_that_no_one_names_are_refused_for_mp4(tmp_path):
    clip = raw_sound(tmp_path / "in.mkv", 9)
    with pytest.raises(SinkError, match=r"can't be stored in \.mp4; write to \.mov or \.mkv"):
        FileSink(tmp_path / "out.mp4", copy_from=clip)


def test_a_file_that_can_not_be_opened_never_gets_its_name(tmp_path):
    """NUT calls E-AC-3 AC-3, and of that MP4's muxer can't make a header."""
    clip = tmp_path / "in.nut"
    with av.open(str(clip), "w") as new:
        sound = new.add_stream("eac3", rate=48000, layout="stereo")
        for number in range(20):
            piece = av.AudioFrame("fltp", "stereo", 1536)
            piece.pts, piece.sample_rate, piece.time_base = 1536 * number, 48000, Fraction(1, 48000)
            new.mux(sound.encode(piece))
    with pytest.raises(SinkError, match=r"out\.mp4: what was written can't be opened .* \.mkv"):
        annotate(clip, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
    assert annotate(clip, tmp_path / "out.mkv") == ()
    assert read_packets(tmp_path / "out.mkv", "audio") == read_packets(clip, "audio")

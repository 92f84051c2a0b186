import av

from scripts.bench_memory import repeat
from scripts.make_clip import make_clip


def stamps(path):
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def test_clip_has_the_frames_asked_for_and_sound_of_that_length(tmp_path):
    path = tmp_path / "clip.mp4"
    make_clip(path, width=64, height=48, frames=12, fps=24)
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert (video.codec.name, video.width, video.height) == ("h264", 64, 48)
        assert sound.codec.name == "aac"
    assert stamps(path) == [n / 24 for n in range(12)]


def test_repeat_joins_copies_without_gap_or_overlap(tmp_path):
    part, path = tmp_path / "part.mp4", tmp_path / "all.mp4"
    make_clip(part, width=64, height=48, frames=6, fps=30)
    repeat(part, path, 3)
    found = stamps(path)
    assert len(found) == 18
    assert all(abs(time - n / 30) < 1e-3 for n, time in enumerate(found))

"""What is no readable video is refused at opening: one line, the reason, the cure."""

import os
from pathlib import Path

import pytest

from stream.errors import SourceError, StreamError
from stream.sources.file import FileSource
from tests.builders import make_clip

KEYS = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


def missing(folder: Path) -> Path:
    (folder / "holiday.mp4").touch()
    return folder / "holidai.mp4"


def nowhere(folder: Path) -> Path:
    return folder / "no" / "clip.mp4"


def a_folder(folder: Path) -> Path:
    return folder


def empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


def text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("just some notes\n" * 50)
    return folder / "notes.txt"


def renamed_text(folder: Path) -> Path:
    (folder / "notes.mp4").write_text("just some notes\n" * 50)
    return folder / "notes.mp4"


def playlist(folder: Path) -> Path:
    make_clip(folder / "clip.ts", frames=3)
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.ts\n")
    return folder / "list.m3u8"


def encrypted(folder: Path) -> Path:
    return make_clip(folder / "drm.mp4", frames=5, container_options=KEYS)


def audio_only(folder: Path) -> Path:
    return make_clip(folder / "song.m4a", frames=10, audio=True, video=False)


def no_frames(folder: Path) -> Path:
    return make_clip(folder / "none.mkv", frames=0, audio=True, pts=[])


def unknown_codec(folder: Path) -> Path:
    clip = make_clip(folder / "odd.mp4", frames=5)
    clip.write_bytes(clip.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    return clip


def all_damaged(folder: Path) -> Path:
    clip = make_clip(folder / "bad.mp4", frames=5)
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    clip.write_bytes(data)
    return clip


@pytest.mark.parametrize(
    ("make", "reason", "cure"),
    [
        (missing, "no such file", "did you mean holiday.mp4?"),
        (nowhere, "no such file", "nor a directory"),
        (a_folder, "is a directory", "name a file in it"),
        (fifo, "is no regular file", "pipes and devices are not read here"),
        (empty, "file is empty (0 bytes)", "copy or download it again"),
        (text, "not a video that can be read", "give a video or image file"),
        (renamed_text, "not a video that can be read", "give a video or image file"),
        (playlist, "not a video that can be read", "give a video or image file"),
        (encrypted, "encrypted", "use a copy without protection"),
        (audio_only, "no video in it (audio only)", "give a file with pictures"),
        (no_frames, "without frames", "nothing to explain"),
        (unknown_codec, "video codec is unknown", "ffmpeg -i IN"),
        (all_damaged, "not one frame can be decoded", "check that a player shows it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_with_reason_and_cure(tmp_path, make, reason, cure):
    path = make(tmp_path)
    with pytest.raises(SourceError) as caught:
        FileSource(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert cure in message
    assert "\n" not in message
    assert caught.value.exit_code == 3
    assert isinstance(caught.value, StreamError)


def test_no_permission(unprivileged):
    clip = make_clip(unprivileged / "c.mp4", frames=1)
    clip.chmod(0)
    with pytest.raises(SourceError, match=r"no permission to read it; try: chmod u\+r"):
        FileSource(clip)


def test_a_refused_file_is_closed_again(tmp_path):
    path = all_damaged(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(SourceError):
            FileSource(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before

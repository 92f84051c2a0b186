"""NVENC: options as FFmpeg has them, and its absence told before anything is written."""

import errno
from fractions import Fraction

import av
import pytest

from stream.errors import SinkError, UsageError
from stream.nvidia import encoder_trouble
from stream.sinks import FileSink, encoder, nvenc
from stream.sinks.encoder import EncoderUnable, choose_encoder
from stream.sinks.nvenc import NVENC, PRESETS, nvenc_options, nvenc_trouble
from tests.builders import make_explanation, make_frame
from tests.stream.sinks.reading import names, read_video

TICK = Fraction(1, 90000)
needs_no_gpu = pytest.mark.skipif(encoder_trouble() is None, reason="an NVIDIA GPU is here")


@pytest.fixture
def works(monkeypatch):
    """All encoders work here; gives what was tried: codec, options, size, whether it encoded."""
    tried = []

    def try_it(codec, options, size, *, encode):
        tried.append((codec, options, size, encode))

    monkeypatch.setattr(encoder, "_try", try_it)
    monkeypatch.setattr(encoder, "holds_encoder", lambda container, codec, options: True)
    return tried


@pytest.mark.parametrize("codec", NVENC)
@pytest.mark.parametrize(("preset", "best", "worst"), [("p1", 1, None), ("p7", 1.5, 51)])
def test_ffmpeg_has_these_options_and_values(codec, preset, best, worst):
    supported = av.CodecContext.create(codec, "w").supported_options
    known = {option.name: option for option in (*supported.generic, *supported.private)}
    for crf in (best, worst, NVENC[codec].worst):
        for name, value in nvenc_options(codec, preset, crf).items():
            option = known[name]
            choices = {choice.name for choice in option.choices}
            assert value in choices or option.min <= float(value) <= option.max, name


@pytest.mark.parametrize("codec", NVENC)
def test_each_preset_and_the_whole_scale_are_ffmpegs(codec):
    options = {o.name: o for o in av.CodecContext.create(codec, "w").supported_options.private}
    assert set(PRESETS) <= {choice.name for choice in options["preset"].choices}
    assert options["cq"].max == NVENC[codec].worst


def test_preset_and_crf_become_its_own(works):
    choice = choose_encoder("h264_nvenc", "p6", 23.5)
    assert choice.options == {"preset": "p6", "rc": "vbr", "cq": "23.5", "bf": "0"}
    assert choose_encoder("hevc_nvenc", None, None).options["cq"] == "24"
    assert choose_encoder("av1_nvenc", None, None).options["preset"] == "p4"
    assert works[0] == ("h264_nvenc", choice.options, (256, 256), True)


def test_the_size_to_come_is_tried_and_evened(works, tmp_path):
    FileSink(tmp_path / "a.mp4", codec="h264_nvenc", size=(1919, 1080)).close()
    FileSink(tmp_path / "b.mp4", size=(64, 48)).close()
    assert [(codec, size, encode) for codec, _, size, encode in works] == [
        ("h264_nvenc", (1920, 1080), True),
        ("libx264", (64, 48), False),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codec": "h264_nvenc", "preset": "ultrafast"}, "p1 .fastest. .. p7 .best."),
        ({"codec": "hevc_nvenc", "preset": "slow"}, "preset slow; NVENC has p1"),
        ({"codec": "h264_nvenc", "crf": 0}, r"crf 0; NVENC's scale is 1 \(best\) .. 51"),
        ({"codec": "hevc_nvenc", "crf": 52}, "crf 52; NVENC's scale"),
        ({"codec": "av1_nvenc", "crf": 64}, r"\.\. 63 \(smallest\)"),
        ({"codec": "auto", "crf": 20}, "another scale in each encoder; leave them out"),
        ({"codec": "auto", "preset": "p4"}, "name one: h264_nvenc, libx264"),
    ],
)
def test_what_it_has_not_is_refused(tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        FileSink(tmp_path / "out.mp4", **options)
    assert names(tmp_path) == []


@needs_no_gpu
@pytest.mark.parametrize("codec", NVENC)
def test_its_absence_is_one_line_before_anything_is_written(tmp_path, codec):
    with pytest.raises(SinkError) as refused:
        FileSink(tmp_path / "out.mkv", codec=codec)
    assert str(refused.value) == f"encoder {codec}: {encoder_trouble()}; or take libx264"
    assert refused.value.exit_code == 5
    assert names(tmp_path) == []


@needs_no_gpu
def test_auto_falls_back_and_says_so(tmp_path):
    with FileSink(tmp_path / "out.mp4", codec="auto") as sink:
        for index in range(3):
            sink.write(make_frame(64, 96, index=index), make_explanation())
    assert sink.notes == (f"encoded by libx264, not h264_nvenc: {encoder_trouble()}",)
    assert read_video(sink.path).indices == [0, 1, 2]


@needs_no_gpu
def test_a_gpu_gone_since_then_leaves_nothing(tmp_path, works):
    with (
        pytest.raises(SinkError, match=r"not permitted; try the encoder libx264 or"),
        FileSink(tmp_path / "out.mp4", codec="h264_nvenc") as sink,
    ):
        sink.write(make_frame(), make_explanation())
    assert names(tmp_path) == []


def test_auto_takes_nvenc_where_it_works(works):
    choice = choose_encoder("auto", None, None, "mp4", (640, 360))
    assert (choice.codec, choice.notes) == ("h264_nvenc", ("encoded by h264_nvenc",))
    assert [codec for codec, *_ in works] == ["h264_nvenc"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            av.error.NotImplementedError(errno.ENOSYS, "Function not implemented"),
            "driver is too old",
        ),
        (av.error.ExternalError(1, "external"), "no GPU here encodes h264 of 96x64: none has"),
        (
            av.error.ArgumentError(errno.EINVAL, "Invalid argument"),
            "h264 of 96x64 (Invalid argument)",
        ),
    ],
)
def test_the_reason_on_a_machine_with_a_driver(monkeypatch, error, said):
    monkeypatch.setattr(nvenc, "encoder_trouble", lambda: None)
    assert said in nvenc_trouble("h264_nvenc", (96, 64), error)


def test_the_trial_wants_a_packet(monkeypatch):
    size, options = (64, 48), {"preset": "ultrafast"}
    encoder._try("libx264", options, size, encode=True)
    monkeypatch.setattr(encoder, "_encodes", lambda context: False)
    with pytest.raises(EncoderUnable, match="libx264: opens here, but encodes nothing"):
        encoder._try("libx264", options, size, encode=True)
    encoder._try("libx264", options, size, encode=False)


def test_an_encoder_of_a_gpu_has_to_encode():
    assert encoder._is_hardware(av.Codec("av1_nvenc", "w"))
    assert not encoder._is_hardware(av.Codec("libx264", "w"))


@pytest.mark.gpu
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("codec", NVENC)
def test_on_a_gpu_frames_and_stamps_come_back(tmp_path, codec, suffix):
    stamps = [126000, 129003, 129100, 200000, 200090, 900000]
    try:
        sink = FileSink(tmp_path / f"out{suffix}", codec=codec, size=(320, 240))
    except EncoderUnable as error:
        pytest.skip(error.reason)
    with sink:
        for index, pts in enumerate(stamps):
            frame = make_frame(240, 320, index=index, pts=pts, time_base=TICK)
            sink.write(frame, make_explanation())
    video = read_video(sink.path)
    assert video.indices == list(range(6))
    if codec == "hevc_nvenc" and suffix == ".mp4":
        assert video.stream.codec_context.codec_tag == "hvc1"
    for found, pts in zip(video.seconds, stamps, strict=True):
        assert abs(found - pts * TICK) <= (TICK if suffix == ".mp4" else Fraction(1, 1000))

"""On an NVIDIA GPU: NVDEC gives the frames of the CPU, file by file."""

import pytest

from stream.colour import ColourTags
from stream.hardware import CLIPS as PROBES
from stream.hardware import probe_decoder
from stream.sources.cuda import context_trouble
from tests.builders import make_clip
from tests.stream.sources.test_cuda_same import assert_same

pytestmark = pytest.mark.gpu
X265 = {"x265-params": "log-level=none"}
SIZE = {"width": 320, "height": 240, "frames": 12}
CLIPS = {
    "h264": ("h264", {"options": {"bf": "3", "preset": "veryfast"}}),
    "h264 cropped": ("h264", {"width": 318, "height": 234}),
    "h264 full range": ("h264", {"pix_fmt": "yuvj420p", "colour": ColourTags("bt709", True, 1, 1)}),
    "h264 interlaced": ("h264", {"interlaced": True}),
    "h264 turned": ("h264", {"rotation": 90}),
    "hevc": ("hevc", {"codec": "libx265", "options": X265}),
    "hevc 10 bit": ("hevc", {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": X265}),
    "vp9": ("vp9", {"codec": "libvpx-vp9", "options": {"crf": "30", "b": "0"}}),
    "av1": ("av1", {"codec": "libsvtav1", "options": {"preset": "10"}}),
    "av1 turned": ("av1", {"codec": "libsvtav1", "options": {"preset": "10"}, "rotation": 90}),
}

COME_DOWN = ("interlaced", "turned", "bit")
"""Of these the CPU has to change the frames."""


@pytest.fixture(scope="module", params=PROBES)
def able(request):
    """A codec NVDEC decodes here."""
    if reason := probe_decoder(request.param):
        pytest.skip(f"NVDEC {request.param}: {reason}")
    return request.param


def test_a_codec_that_works_gives_the_frames_of_the_cpu(tmp_path, able):
    for kind, (codec, options) in CLIPS.items():
        if codec == able:
            clip = make_clip(tmp_path / f"{kind}.mp4", **{**SIZE, **options})
            down = context_trouble() or any(word in kind for word in COME_DOWN)
            assert_same(clip, up=0 if down else SIZE["frames"])

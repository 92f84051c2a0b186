"""NVENC, the encoder on NVIDIA's GPUs: its own presets and scale of quality, and why it is absent.

Frames on the GPU are taken where they are. Those in system memory go up: FFmpeg hands yuv420p to
the GPU as it is.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import av

from stream.errors import UsageError
from stream.nvidia import encoder_trouble


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale of quality (NVENC's `cq`), 1 is the best.

    Attributes:
        worst: its other end.
        usual: where none is given. Not calibrated against the crf of x264 and x265.
    """

    worst: int
    usual: int


NVENC = {"h264_nvenc": Scale(51, 20), "hevc_nvenc": Scale(51, 24), "av1_nvenc": Scale(63, 30)}
PRESETS = ("p1", "p2", "p3", "p4", "p5", "p6", "p7")
USUAL_PRESET = "p4"
"""NVENC's own default; also this one is many times faster than a model, at 720p."""


def nvenc_options(codec: str, preset: str | None, crf: float | None) -> dict[str, str]:
    """FFmpeg's options for one of `NVENC`.

    Constant quality is its rate control `vbr` with `cq` and without a bit rate, which FFmpeg then
    drops. No B-frames: each packet's time is then its frame's, at any frame rate.

    Args:
        codec: one of `NVENC`.
        preset: p1 (fastest) to p7 (best); None is p4.
        crf: taken as `cq`; None is the usual of the codec.

    Raises:
        UsageError: if NVENC has no such preset or quality.
    """
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"encoder {codec}: preset {preset}; NVENC has p1 (fastest) .. p7 (best)")
    scale = NVENC[codec]
    if crf is not None and not 1 <= crf <= scale.worst:
        raise UsageError(
            f"encoder {codec}: crf {crf}; NVENC's scale is 1 (best) .. {scale.worst} (smallest)"
        )
    quality = scale.usual if crf is None else crf
    return {"preset": preset or USUAL_PRESET, "rc": "vbr", "cq": str(quality), "bf": "0"}


def nvenc_trouble(codec: str, size: tuple[int, int], error: av.FFmpegError | OSError) -> str:
    """Why it failed here, with the cure.

    Args:
        codec: one of `NVENC`.
        size: (width, height) of the frames.
        error: what FFmpeg raised: "not implemented" where the driver's interface is older than
            the one it was built for, an "external error" where no GPU is able.
    """
    if trouble := encoder_trouble():
        return trouble
    if error.errno == errno.ENOSYS:
        return "the NVIDIA driver is too old for this FFmpeg's NVENC; update it"
    what = f"{codec.partition('_')[0]} of {size[0]}x{size[1]}"
    if isinstance(error, av.error.ExternalError):
        return (
            f"no GPU here encodes {what}: none has such an encoder (A100 and H100 have none at "
            "all), or all its sessions are taken"
        )
    return f"NVENC does not take {what} ({error.strerror})"

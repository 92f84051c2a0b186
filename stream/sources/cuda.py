"""Video files decoded by NVDEC, the decoder on NVIDIA's GPUs, as far as it gives the same frames.

FFmpeg's own decoder reads the file and hands only the pictures' data to the GPU, so packets,
order, stamps, rotation and tags are those of the CPU. Where torch is there, FFmpeg decodes in its
context on the GPU, and frames stay (`stream.gpu_frame`); else each is brought down at once.
"""

from __future__ import annotations

import errno
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.codec.hwaccel import HWAccel, HWDeviceType
from av.video.codeccontext import VideoCodecContext

from engines.errors import EngineError
from nem.deinterlace import DEINTERLACED
from nem.errors import first_line
from stream.errors import SourceError
from stream.nvidia import decoder_trouble, driver_trouble
from stream.sources import planar
from stream.sources.door import Door
from stream.sources.extent import Extent
from stream.sources.opening import open_container, video_stream
from stream.sources.reading import Opened, Reading

if TYPE_CHECKING:
    from engines.surface import Surface

BROUGHT_DOWN = frozenset({"yuv420p", "yuvj420p", "yuv420p10le", "yuv420p12le"})
"""Pixel formats of the CPU's frames that the GPU's can be turned into bit by bit."""
STAYS = frozenset({"yuv420p", "yuvj420p"})
"""Those that can be used where they are."""
OWN_DECODER = frozenset({"av1"})
"""Codecs for which FFmpeg prefers a library (dav1d) that knows no GPU over its own decoder."""
MOST_DIFFERENCE = 1.0
"""Levels of 255 by which a plane of the first frame may differ in the mean. Most codecs are exact,
old ones (MPEG-2, MPEG-4) leave the rounding open; a wrong picture differs by far more."""


class CudaUnavailable(Exception):  # noqa: N818 - a state; callers decide what it means
    """This file can't be decoded on the GPU; the message is the reason."""


def read_on_cuda(path: Path, name: str, extent: Extent, cpu: Reading) -> tuple[Reading, str]:
    """Open a file anew to be decoded on the GPU; its first frame is compared with the CPU's.

    Args:
        path: the file.
        name: of the source, for messages.
        extent: what the file's outer structure tells.
        cpu: the same file read by the CPU; stays open.

    Returns:
        What reads it, and where its frames are, in words. Frames may be on the GPU
        (`planar.is_up`).

    Raises:
        CudaUnavailable: if it can't be, or other frames would come.
    """
    kind = cpu.first.format.name
    codec = cpu.decoder.canonical_name
    size = f"{cpu.first.width}x{cpu.first.height}"
    if not (codec in OWN_DECODER or _knows_cuda(cpu.decoder)):
        raise CudaUnavailable(f"no decoder of {codec} knows NVIDIA's GPUs")
    if kind not in BROUGHT_DOWN:
        raise CudaUnavailable(f"{kind} can't be brought down from the GPU unchanged")
    if cpu.first.width % 2 or cpu.first.height % 2:
        # FFmpeg brings down the lower half of lines of colour.
        raise CudaUnavailable(f"{size}: odd sides lose colour on the way down from the GPU")
    door = Door(name, cpu.first, codec, cpu.aspect, Counter())
    if kind not in STAYS or not door.passes(cpu.first) or cpu.counts[DEINTERLACED]:
        why = "the CPU has to turn, scale, join or round them"
    elif (trouble := context_trouble()) is not None:
        why = trouble
    else:
        try:
            where = "they stay on the GPU until needed elsewhere"
            return _checked(path, name, extent, cpu, stay=True), where
        except CudaUnavailable as error:
            why = str(error)
    return _checked(path, name, extent, cpu, stay=False), f"they come down at once: {why}"


def context_trouble() -> str | None:
    """Why frames can't stay on the GPU, or None."""
    if trouble := driver_trouble():  # asked first: to load torch takes seconds
        return trouble
    try:
        from engines.surface import torch_trouble
    except (ImportError, OSError) as error:
        return f"torch is missing ({first_line(error)})"
    return torch_trouble()


def torchs_context() -> AbstractContextManager[None]:
    """Torch's context on the first GPU is this thread's current one, for FFmpeg to take it."""
    from engines.surface import torchs_context

    return torchs_context()


def surface_of(frame: av.VideoFrame) -> Surface:
    """The picture of a frame on the GPU, copied there.

    Raises:
        EngineError: the GPU failed, or its memory ran out.
    """
    from engines.surface import Surface

    return Surface.take(frame.planes)


def open_for_cuda(path: Path, name: str, extent: Extent, codec: str, *, stay: bool) -> Opened:
    """Open a file to be decoded on the first GPU, or not at all.

    Args:
        path: the file.
        name: of the source, for messages.
        extent: what the file's outer structure tells.
        codec: FFmpeg's name of the codec.
        stay: leave frames on the GPU, in torch's CUDA context. Else they are brought down
            from one of its own: FFmpeg makes no use of that of CUDA's runtime by itself
            ("incompatible flags").

    Raises:
        av.FFmpegError, SourceError: if there is no GPU.
        RuntimeError: if the decoder of this codec knows none.
    """
    device = HWAccel(
        device_type="cuda",
        allow_software_fallback=False,
        options={"primary_ctx": "0", "current_ctx": "1"} if stay else None,
        is_hw_owned=stay,
    )
    own = codec in OWN_DECODER
    with torchs_context() if stay else nullcontext():
        container = open_container(path, name, extent, None if own else device)
        try:
            stream = video_stream(container, name)
            context = stream.codec_context
            if own:
                context = cast(VideoCodecContext, av.CodecContext.create(codec, "r", device))
                context.extradata = stream.codec_context.extradata
                # PyAV writes the GPU's format there, which this decoder takes for a GPU set up.
                context.pix_fmt = "yuv420p"
            if not context.is_hwaccel:
                raise RuntimeError(f"the decoder of {codec} knows no GPU")
        except BaseException:
            container.close()
            raise
    return Opened(container, stream, context)


def _checked(path: Path, name: str, extent: Extent, cpu: Reading, *, stay: bool) -> Reading:
    """The file read by the GPU, its first frame as the CPU's; else `CudaUnavailable`."""
    codec = cpu.decoder.canonical_name
    try:
        cuda = Reading(name, open_for_cuda(path, name, extent, codec, stay=stay), extent)
        try:
            difference = _difference(name, cpu, cuda)
        except BaseException:
            cuda.close()
            raise
    except EngineError as error:
        raise CudaUnavailable(str(error)) from error
    except (av.FFmpegError, SourceError, RuntimeError) as error:
        what = f"{codec} {cpu.first.width}x{cpu.first.height} {cpu.first.format.name}"
        reason = decoder_trouble() or f"NVDEC does not take {what}{_said(error)}"
        raise CudaUnavailable(reason) from error
    if difference:
        cuda.close()
        raise CudaUnavailable(difference)
    return cuda


def _difference(name: str, cpu: Reading, cuda: Reading) -> str | None:
    """What is not alike in the first frames, or None."""
    if cpu.first.pts != cuda.first.pts:
        return f"NVDEC's first frame has stamp {cuda.first.pts}, the CPU's {cpu.first.pts}"
    counts: Counter[str] = Counter()
    door = Door(name, cpu.first, cpu.decoder.canonical_name, cpu.aspect, counts)
    found = cuda.first
    if not planar.is_up(found):
        planes = list(door.planes(found))
    elif door.passes(found):
        planes = surface_of(found).planes()
    else:
        planes = list(door.planes(planar.come_down(found, name)))
    if counts:  # as where a picture is cropped on the left, which no one does on the GPU
        return "NVDEC's first frame has another size or other colour tags than the CPU's"
    pairs = zip(door.planes(cpu.first), planes, strict=True)
    worst = max(float(np.abs(one.astype(np.int16) - other).mean()) for one, other in pairs)
    if worst > MOST_DIFFERENCE:
        return f"NVDEC's first frame differs from the CPU's by {worst:.1f} levels"
    return None


def _knows_cuda(decoder: av.Codec) -> bool:
    return any(c.device_type == HWDeviceType.cuda for c in decoder.hardware_configs)


def _said(error: Exception) -> str:
    """What FFmpeg said, in brackets."""
    cause = error if isinstance(error, av.FFmpegError) else error.__cause__
    if not isinstance(cause, av.FFmpegError):
        return ""
    # FFmpeg says so where the driver was asked and has no decoder for this codec, or kind of it.
    missing = cause.errno == errno.ENOSYS
    return " (this GPU's decoder lacks it)" if missing else f" ({cause.strerror})"

"""NVDEC without a GPU: the CPU decodes, and frames come as the GPU's do, U and V side by side.

`stay_up` makes them count as frames in a GPU's memory: all that is done to those is torch and
DLPack, which take frames of the CPU as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import av

from stream.sources import cuda, planar
from stream.sources.cuda import Opened
from stream.sources.reading import open_for_cpu

SEMI_PLANAR = {
    "yuv420p": "nv12",
    "yuvj420p": "nv12",
    "yuv420p10le": "p010le",
    "yuv420p12le": "p016le",
}
Change = Callable[[av.VideoFrame, int], av.VideoFrame | None]


class FakeNvdec:
    """Acts as a `VideoCodecContext` that decodes on a GPU and brings its frames down.

    Args:
        context: of the CPU, not open yet.
        change: makes of a frame and its number what comes instead; None drops the frame.
    """

    is_hwaccel = True

    def __init__(self, context: av.VideoCodecContext, change: Change | None = None) -> None:
        self._context, self._change = context, change
        self._number = -1

    def __setattr__(self, name, value):
        if name in {"thread_type", "thread_count"}:
            setattr(self._context, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def sample_aspect_ratio(self):
        return self._context.sample_aspect_ratio

    def decode(self, packet):
        changed = []
        for frame in self._context.decode(packet):
            self._number += 1
            frame = brought_down(frame)
            if self._change is not None:
                frame = self._change(frame, self._number)
            changed.append(frame)
        return [frame for frame in changed if frame is not None]


def brought_down(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame in the layout NVDEC would deliver it in; all attributes stay."""
    return frame.reformat(format=SEMI_PLANAR[frame.format.name], threads=1)


class FakeGpu:
    """Stands in for `stream.sources.cuda.open_for_cuda`.

    Attributes:
        opened: what was opened, to look whether it is closed again.
        stay: whether the last opening was for frames that stay on the GPU.
    """

    def __init__(self, change: Change | None = None) -> None:
        self._change = change
        self.opened: list[Opened] = []
        self.stay = False

    def __call__(self, path, name, extent, codec, *, stay) -> Opened:
        self.stay = stay
        opened = open_for_cpu(path, name, extent)
        context = FakeNvdec(opened.context, self._change)
        self.opened.append(opened)
        return Opened(opened.container, opened.stream, context)


@contextmanager
def stay_up(change: Change | None = None) -> Iterator[FakeGpu]:
    """A GPU that keeps its frames."""
    fake = FakeGpu(change)

    def is_up(frame: av.VideoFrame) -> bool:
        return fake.stay and frame.format.name in SEMI_PLANAR.values()

    with (
        mock.patch.object(cuda, "open_for_cuda", fake),
        mock.patch.object(cuda, "context_trouble", return_value=None),
        mock.patch.object(planar, "is_up", is_up),
    ):
        yield fake

"""A video file: encoded frames, and the sound, subtitles and data of the source untouched."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from nem.explanation import Explanation
from stream.errors import SinkError
from stream.frame import Frame
from stream.sinks.base import Sink
from stream.sinks.containers import format_of, muxer_options
from stream.sinks.copied import CopiedStreams
from stream.sinks.encoded import VideoEncoder
from stream.sinks.encoder import choose_encoder, even
from stream.sinks.partial import PartialFile
from stream.sources.base import counted

log = logging.getLogger(__name__)

IO_BYTES = 1 << 18
HEADER = {"probesize": "32", "skip_frame": "all"}
"""Options of FFmpeg to read a file's header and to look no further; it would decode a picture."""
USUAL = "libx264"
"""The encoder that takes what others refuse: any rate of frames and any colour tags."""


class FileSink(Sink):
    """Writes frames with their own time stamps to MP4, MOV or Matroska, by suffix.

    Until it is whole the file is `<path>.partial`, and playable up to the last second written.
    Frames are written as they are shown, so the file carries no rotation.

    Args:
        path: the output: .mp4, .m4v, .mov or .mkv.
        copy_from: file whose sound, subtitles, data, chapters and metadata are copied.
        overwrite: replace an existing output.
        fps: about how many frames come per second, a hint for the encoder.
        size: (width, height) of the frames to come, so that a GPU too small for them is told of
            here; None checks less.
        codec: FFmpeg's name of the encoder, as libx264 or h264_nvenc; "auto" is h264_nvenc where
            it works, else libx264, and `notes` tells which.
        preset: the encoder's; None for `ultrafast` of x264 and x265, `p4` of NVENC.
        crf: the encoder's quality, lower is better; None for 20 with x264, 24 x265, 10 VP8, and
            with x264's `ultrafast` for one quantiser in all frames (`encoder.X264_FASTEST`). With
            NVENC it is `cq`, a scale of its own.

    Raises:
        UsageError: for an unknown suffix or encoder, or an output that is an input.
        SinkError: if the encoder does not work here, or the output exists, can't be created, or
            can't hold a copied track.
        SourceError: if `copy_from` can't be read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        copy_from: Path | None = None,
        overwrite: bool = False,
        fps: Fraction | None = None,
        size: tuple[int, int] | None = None,
        codec: str = USUAL,
        preset: str | None = None,
        crf: float | None = None,
    ) -> None:
        self._format = format_of(path)
        self._choice = choose_encoder(codec, preset, crf, self._format, size)
        self._fps = fps
        inputs = [] if copy_from is None else [copy_from]
        self._output = PartialFile(path, overwrite=overwrite, inputs=inputs)
        self._copied: CopiedStreams | None = None
        try:
            if copy_from is not None:
                self._copied = CopiedStreams(copy_from, self._format)
        except BaseException:
            self._output.discard()
            raise
        self._container: OutputContainer | None = None
        self._encoder: VideoEncoder | None = None
        self._notes: list[str] = list(self._choice.notes)
        self._closed = False
        self.frames = 0

    @property
    def path(self) -> Path:
        """The output's name once it is whole."""
        return self._output.path

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not as in the source, one sentence each; complete after `close`."""
        if self._copied is None:
            return tuple(self._notes)
        counts = self._copied.counts.items()
        repairs = (f"copied tracks: {counted(n, cause)}" for cause, n in counts)
        return (*self._notes, *self._copied.notes, *repairs)

    def write(self, frame: Frame, explanation: Explanation) -> None:
        """Encode one frame.

        Raises:
            SinkError: if it can't be encoded or stored, or differs in size from the first.
        """
        with self._failures():
            if self._encoder is None or self._container is None:
                self._encoder = self._start(frame)
            self._mux(self._encoder.encode(frame))
            self.frames += 1

    def close(self, *, whole: bool = True) -> None:
        """Finish the file; see `Sink.close`. Without any frame it is removed."""
        if self._closed:
            return
        self._closed = True
        try:
            if self.frames and whole:
                with self._failures():
                    self._finish(all_packets=True)
                    self._read_back()
                self._output.finish()
            elif self.frames:
                self._finish(all_packets=False)
        except (SinkError, av.FFmpegError, OSError) as error:
            if whole:
                raise
            log.warning("%s: not ended cleanly: %s", self._output.partial, error)
        finally:
            self._release()

    def _start(self, first: Frame) -> VideoEncoder:
        metadata = self._copied.metadata if self._copied is not None else {}
        out = av.open(
            self._output.file,
            "w",
            format=self._format,
            container_options=muxer_options(self._format, first.time_base, metadata),
            buffer_size=IO_BYTES,
        )
        self._container = out
        encoder = VideoEncoder(out, self._choice, first, self._fps)
        if self._copied is not None:
            self._copied.add_to(out, first.pts * first.time_base)
        width, height = even(encoder.size)
        if (width, height) != encoder.size:
            was = f"{first.width}x{first.height}"
            self._notes.append(f"{was} evened to {width}x{height} for the encoder")
        return encoder

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        assert self._container is not None
        for packet in packets:
            if self._copied is not None and packet.dts is not None:
                self._copied.copy_until(float(packet.dts * packet.time_base))
            self._container.mux_one(packet)

    def _finish(self, *, all_packets: bool) -> None:
        assert self._encoder is not None
        assert self._container is not None
        self._mux(self._encoder.flush())
        if all_packets and self._copied is not None:
            self._copied.copy_until(None)
        self._container.close()

    def _read_back(self) -> None:
        """Open the file, as MP4's muxer leaves out a header that it can't write, without an error.

        Raises:
            SinkError: if it can't be opened.
        """
        self._output.file.flush()
        try:
            with self._output.partial.open("rb") as file, av.open(file, options=HEADER):
                pass
        except av.InvalidDataError as error:
            raise SinkError(
                f"{self.path}: what was written can't be opened ({error.strerror}), so a copied "
                "track does not fit in; write to .mkv, which takes nearly everything"
            ) from error
        except OSError:
            log.debug("%s: not read back", self._output.partial, exc_info=True)

    def _release(self) -> None:
        if self._encoder is not None:
            self._encoder.close()
        if self.frames:
            self._output.leave()
        else:
            self._output.discard()
        if self._copied is not None:
            self._copied.close()
        if self._container is not None:
            self._container.close()  # after its file: then it writes no more

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn failures of encoder and disk into one line, and end the file where it is."""
        try:
            yield
        except SinkError:
            raise
        except av.FFmpegError as error:  # some of these are OSErrors too
            self._fail()
            cures = []
            if self._choice.codec != USUAL:
                cures.append(f"the encoder {USUAL}")
            if self._encoder is not None and self._encoder.on_gpu:
                cures.append("decoding by the CPU (--decode cpu)")
            if self._format != "matroska":
                cures.append("another suffix (.mkv takes nearly everything)")
            raise SinkError(
                f"{self.path}: encoder {self._choice.codec} or container failed: "
                f"{error.strerror}; try {' or '.join(cures) or 'the encoder ffv1'}"
            ) from error
        except OSError as error:
            self._fail()
            raise self._output.failed(error) from error

    def _fail(self) -> None:
        if not self._closed:
            self._closed = True
            self._release()

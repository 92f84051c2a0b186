"""Where annotated frames go: a file, a window, score lines, or nowhere."""

from stream.sinks.base import Sink
from stream.sinks.file import FileSink
from stream.sinks.null import NullSink
from stream.sinks.scores import ScoresSink
from stream.sinks.window import WindowSink

__all__ = ["FileSink", "NullSink", "ScoresSink", "Sink", "WindowSink"]

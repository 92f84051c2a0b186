"""Resident memory over a long run: does it stay, and how much is it?

    python -m scripts.bench_memory --size 1920x1080 --frames 5000

Runs the pipeline in this process on a clip made by repeating a generated one, H.264 in and out, and
reads the resident set after each frame. Growth is the median of the last 500 frames minus that of
the 500 after the warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import av

from scripts.bench_stream import run_pipeline
from scripts.ending import launch, new_file
from scripts.make_clip import frame_size, make_clip
from stream.heap import one_heap

WINDOW = 500


def repeat(clip: Path, path: Path, times: int) -> None:
    """Write the video packets of `clip` `times` times after one another, without decoding."""
    with av.open(str(path), "w") as out:
        shift, stream = 0, None
        for _ in range(times):
            end = 0
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.dts is None:
                        continue
                    end = max(end, packet.pts + (packet.duration or 1))
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    out.mux(packet)
            shift += end


def resident_mb() -> float:
    """Resident set of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description="Measure resident memory over a long run.")
    parser.add_argument(
        "--size", type=frame_size, default="1920x1080", help="WIDTHxHEIGHT (default 1920x1080)"
    )
    parser.add_argument("--frames", type=int, default=5000, help="at least (default 5000)")
    parser.add_argument("--model", default="nem-tiny", help="bundle (default nem-tiny)")
    parser.add_argument("--json", type=new_file, help="write the figures here")
    args = parser.parse_args()
    if args.frames < (least := 3 * WINDOW):
        parser.error(f"--frames {args.frames}: give at least {least}")
    one_heap()  # as the command, before any thread, and so before the clip is made
    width, height = args.size
    samples: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        part, clip, out = (Path(name) / file for file in ("part.mp4", "clip.mp4", "out.mp4"))
        make_clip(part, width=width, height=height, frames=250, fps=30)
        repeat(part, clip, -(-args.frames // 250))
        found = run_pipeline(
            args.model, clip, out, None, "auto", "cpu", "libx264",
            on_frame=lambda _: samples.append(resident_mb()),
        )  # fmt: skip
    warm = statistics.median(samples[WINDOW : 2 * WINDOW])
    figures = {
        "frames": found["frames"],
        "fps": found["fps"],
        "peak_mb": max(samples),
        "growth_mb": statistics.median(samples[-WINDOW:]) - warm,
    }
    print(
        f"{width}x{height}, {figures['frames']} frames at {figures['fps']:.0f} fps: peak "
        f"{figures['peak_mb']:.0f} MB (asked <= 600), growth after warm-up "
        f"{figures['growth_mb']:.2f} MB (asked < 2)"
    )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    launch(main)

"""Make an H.264 clip with sound for benchmarks: a textured scene that pans, with moving shapes.

python -m scripts.make_clip clip.mp4 --size 1280x720 --frames 300 --fps 30
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from scripts.ending import count, launch, new_file

SOUND_RATE = 48_000


def frame_size(text: str) -> tuple[int, int]:
    """Width and height of "WIDTHxHEIGHT", for argparse; H.264 has no odd ones."""
    width, _, height = text.partition("x")
    try:
        size = int(width), int(height)
    except ValueError:
        size = 0, 0
    if min(size) < 2 or size[0] % 2 or size[1] % 2:
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT, both even, as 1280x720")
    return size


def scene(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """A large RGB backdrop with detail at several scales, uint8 (2 H, 2 W, 3)."""
    rng = np.random.default_rng(seed)
    backdrop = np.zeros((2 * height, 2 * width, 3), np.float32)
    for cells, weight in ((4, 90), (16, 60), (64, 40), (256, 25)):
        noise = rng.random((cells, cells * 2, 3), dtype=np.float32) * weight
        backdrop += cv2.resize(noise, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    return np.clip(backdrop, 0, 255).astype(np.uint8)


def picture(backdrop: NDArray[np.uint8], width: int, height: int, index: int) -> NDArray[np.uint8]:
    """Frame `index`: the window pans over the backdrop, two shapes cross it."""
    left = int((0.5 + 0.5 * np.sin(index / 60)) * width)
    top = int((0.5 + 0.5 * np.cos(index / 75)) * height)
    frame = backdrop[top : top + height, left : left + width].copy()
    centre = (int(width * (0.5 + 0.35 * np.cos(index / 25))), height // 2)
    cv2.circle(frame, centre, height // 8, (200, 60, 40), -1, cv2.LINE_AA)
    corner = (int(width * ((index * 0.004) % 1)), int(height * 0.7))
    far = (corner[0] + height // 6, corner[1] + height // 6)
    cv2.rectangle(frame, corner, far, (40, 90, 210), -1)
    return frame


def make_clip(path: Path, *, width: int, height: int, frames: int, fps: int) -> None:
    """Write the clip: x264 preset `veryfast`, and a 440 Hz tone as AAC of the same length."""
    backdrop = scene(width, height)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=SOUND_RATE)
        sound.layout = "mono"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(backdrop, width, height, index), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        total, step = int(frames / fps * SOUND_RATE), 1024
        for start in range(0, total, step):
            count = min(step, total - start)
            tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(start, start + count) / SOUND_RATE)
            samples = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), "fltp", "mono")
            samples.sample_rate, samples.pts = SOUND_RATE, start
            samples.time_base = Fraction(1, SOUND_RATE)
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description="Make an H.264 clip with sound for benchmarks.")
    parser.add_argument("path", type=new_file, help="file to write, .mp4 or .mkv")
    parser.add_argument(
        "--size", type=frame_size, default="1280x720", help="WIDTHxHEIGHT (default 1280x720)"
    )
    parser.add_argument("--frames", type=count, default=300, help="number of frames (default 300)")
    parser.add_argument("--fps", type=count, default=30, help="frames per second (default 30)")
    args = parser.parse_args()
    width, height = args.size
    make_clip(args.path, width=width, height=height, frames=args.frames, fps=args.fps)
    print(f"{args.path}: {args.frames} frames, {width}x{height}, {args.fps} fps")


if __name__ == "__main__":
    launch(main)

"""Your own OpenCV loop on a device without an NVIDIA GPU: an exported OpenVINO IR, on the CPU.

    python embed_openvino.py nem.xml clip.mp4            a window; Esc ends it
    python embed_openvino.py nem.xml 0 out.mp4           camera 0, written to a file; Ctrl-C ends it

`nem.xml` and `nem.bin` come from `nem-stream export`. Needs numpy, OpenCV and openvino.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it reports to its makers
import openvino as ov  # noqa: E402

Picture = NDArray[np.uint8]


def explain(model: Path, video: cv2.VideoCapture) -> Iterator[tuple[Picture, str]]:
    """Frames (H, W, 3) BGR with what doesn't matter darkened, and the best class's name."""
    core = ov.Core()
    read = core.read_model(model)
    facts: dict[str, Any] = json.loads(read.get_rt_info("nem").astype(str))
    height, width = facts["frame_size"] or facts["input_size"]
    aim = facts["aims"][0]
    run = core.compile_model(read, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    inputs = {name for port in run.inputs for name in port.get_names()}
    while (got := video.read())[0]:
        frame = np.asarray(got[1], np.uint8)
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        given = {"frames": cv2.cvtColor(small, cv2.COLOR_BGR2RGB)[None], "target": np.array([-1])}
        found = run({name: given[name] for name in inputs & given.keys()})
        mask = found[f"mask_{aim}"][0]
        if aim == "ranking":  # only the order counts: each pixel's share of pixels below it
            mask = (mask.argsort(None).argsort() / (mask.size - 1)).reshape(mask.shape)
        mask = cv2.resize(mask, (frame.shape[1], frame.shape[0]))
        best = facts["classes"][found["scores"][0].argmax()] if facts["classes"] else ""
        yield (frame * (0.25 + 0.75 * mask[..., None])).astype(np.uint8), best


def main(model: str, source: str, out: str | None = None) -> None:
    """Show or write the explained video."""
    video = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not video.isOpened():
        raise SystemExit(f"{source}: can't be opened")
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    writer = None
    for frame, best in explain(Path(model), video):
        cv2.putText(frame, best, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
        if out is None:
            cv2.imshow("nem", frame)
            if cv2.waitKey(1) == 27:
                break
            continue
        size = frame.shape[1], frame.shape[0]
        writer = writer or cv2.VideoWriter(out, cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not writer.isOpened():
            raise SystemExit(f"{out}: can't be written")
        writer.write(frame)
    if writer is not None:
        writer.release()
    video.release()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    with suppress(KeyboardInterrupt):  # what was written by then plays
        main(*sys.argv[1:])

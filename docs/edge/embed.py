"""Your own OpenCV loop with an exported TensorRT engine: what the model looks at stays bright.

    python embed.py nem.engine clip.mp4          a window; Esc ends it
    python embed.py nem.engine 0 out.mp4         camera 0, written to a file; Ctrl-C ends it

`nem.engine` and the `nem.json` beside it come from `nem-stream export`. Needs this package as
`pip install .` gives it, tensorrt and cuda-bindings; no torch.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.trt_runner import TrtRunner

Picture = NDArray[np.uint8]


def load(engine: Path) -> tuple[bytes, dict[str, Any]]:
    """The engine's bytes and facts. An engine is code: one that was changed is refused."""
    facts: dict[str, Any] = json.loads(engine.with_suffix(".json").read_text(encoding="utf-8"))
    data = engine.read_bytes()
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise SystemExit(f"{engine}: not the file that its .json describes; export it again")
    return data, facts


def explain(engine: Path, video: cv2.VideoCapture) -> Iterator[tuple[Picture, str]]:
    """Frames (H, W, 3) BGR with what doesn't matter darkened, and the best class's name."""
    data, facts = load(engine)
    height, width = facts["frame_size"]
    aim = facts["aims"][0]
    with closing(TrtRunner(data)) as runner:
        wanted = [name for name in (f"mask_{aim}", "scores") if name in runner.outputs]
        while (got := video.read())[0]:
            frame = np.asarray(got[1], np.uint8)
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            rgb = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
            given = {"frames": rgb[None], "target": np.array([-1])}  # -1: the most probable class
            inputs = {n: given[n].astype(port.dtype) for n, port in runner.inputs.items()}
            found = runner.run(inputs, wanted)
            mask = found[f"mask_{aim}"][0]
            if aim == "ranking":  # only the order counts: each pixel's share of pixels below it
                mask = (mask.argsort(None).argsort() / (mask.size - 1)).reshape(mask.shape)
            mask = cv2.resize(mask, (frame.shape[1], frame.shape[0]))
            best = facts["classes"][found["scores"][0].argmax()] if facts["classes"] else ""
            yield (frame * (0.25 + 0.75 * mask[..., None])).astype(np.uint8), best


def main(engine: str, source: str, out: str | None = None) -> None:
    """Show or write the explained video."""
    video = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not video.isOpened():
        raise SystemExit(f"{source}: can't be opened")
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    writer = None
    for frame, best in explain(Path(engine), video):
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

"""What a run was asked to do, sorted out before anything is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os.path import realpath  # pathlib's raises where links go in a circle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.errors import UsageError

if TYPE_CHECKING:
    from nem.explanation import Aim
    from stream.overlay import Overlay

NO_VIDEO = "none"
"""The OUTPUT that means: write no video."""
STDOUT = "-"
WANTED = {
    "--camera": "give a number or a device, as 0 or /dev/video0",
    "OUTPUT": "give a file to write, as out.mp4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A run, as asked for on the command line.

    Attributes:
        source: file, folder, glob, "demo" or a camera.
        is_camera: True if `source` was given by --camera.
        wishes: options of `stream.sources.open_source` that were given.
        output: video file to write, "none" for no video, or None for the default.
        scores: file for the scores, "-" for stdout, or None.
        show: open a window: yes, no, or None for "a live source without any output".
        overwrite: an existing output may be replaced.
        model: bundle name or path.
        engine: engine name, or "auto"; see `engines.open_engine`.
        device: as "cpu", or "auto".
        precision: as "bf16", or "auto".
        batch: frames of a file computed at once, or None for what is quickest.
        calibrate: pictures or videos for the ranges of int8 and fp8, or None.
        explain: aim, or None for the bundle's default.
        target: class name or number, or None.
        overlay: how to draw.
        smooth: steady the mask over time: yes, no, or None for "live sources only".
        encoder: options of `stream.sinks.FileSink` that were given.
        progress: tell of the progress.
    """

    source: str
    is_camera: bool
    wishes: dict[str, Any]
    output: str | None
    scores: str | None
    show: bool | None
    overwrite: bool
    model: str
    engine: str
    device: str
    precision: str
    batch: int | None
    calibrate: Path | None
    explain: str | None
    target: str | None
    overlay: Overlay
    smooth: bool | None
    encoder: dict[str, Any]
    progress: bool

    @property
    def scores_file(self) -> Path | None:
        """Where the scores go, if to a file."""
        return None if self.scores in (None, STDOUT) else Path(str(self.scores))


def pick_places(
    positionals: tuple[str | None, str | None],
    *,
    source: str | None,
    camera: str | None,
    output: str | None,
) -> tuple[str, bool, str | None]:
    """Sort out what was given as a position and what as a flag.

    Args:
        positionals: SOURCE and OUTPUT as they came; with --source or --camera the first is OUTPUT.
        source: --source.
        camera: --camera.
        output: --output.

    Returns:
        source, whether it is a camera, output or None.

    Raises:
        UsageError: if a place was given twice, no source at all, stdout for the video, or an
            address for it or the camera.
    """
    given = [place for place in positionals if place is not None]
    named = [place for place in (source, camera) if place is not None]
    if len(named) > 1:
        raise UsageError("--source and --camera exclude each other; give one")
    if not named and not given:
        raise UsageError("no source; give a video file, a folder of pictures, --camera 0 or demo")
    chosen = named[0] if named else given.pop(0)
    if len(given) > 1:
        raise UsageError(f"two sources, {chosen} and {given[0]}; give one")
    if given and output is not None:
        raise UsageError(f"two outputs, {given[0]} and {output}; give one")
    place = given[0] if given else output
    if place == STDOUT:
        raise UsageError("OUTPUT -: a video can't go to stdout; give a file, or --scores -")
    if camera is not None and not camera.strip():
        raise UsageError(f"--camera: names none; {WANTED['--camera']}")
    for option, value in (("--camera", camera), ("OUTPUT", place)):
        if value is not None and "://" in value:
            raise UsageError(f"{option} {value}: is an address; {WANTED[option]}")
    return chosen, camera is not None, place


def read_wishes(
    size: str | None, fps: float | None, frames: int | None, decode: str | None = None
) -> dict[str, Any]:
    """Options of `stream.sources.open_source` as it takes them, those that were given.

    Raises:
        UsageError: if `size` isn't WIDTHxHEIGHT.
    """
    wishes: dict[str, Any] = {"fps": fps, "frames": frames, "decode": decode}
    if size is not None:
        width, height = read_size("--size", size)
        wishes |= {"width": width, "height": height}
    return {name: value for name, value in wishes.items() if value is not None}


def read_size(option: str, text: str) -> tuple[int, int]:
    """Width and height of "1280x720".

    Raises:
        UsageError: `text` isn't WIDTHxHEIGHT; names the option.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or not int(match[1]) or not int(match[2]):
        raise UsageError(f"{option} {text}: give WIDTHxHEIGHT, as 1280x720")
    return int(match[1]), int(match[2])


def default_output(path: Path) -> Path:
    """Where the explained `path` goes: clip.mp4 -> clip.nem.mp4, beside it.

    What can't be written becomes .mkv, which holds the sound and subtitles of all of them.
    """
    from stream.sinks.containers import FORMATS

    suffix = path.suffix.lower()
    return path.with_name(f"{path.stem}.nem{suffix if suffix in FORMATS else '.mkv'}")


def plan_outputs(options: Options, *, live: bool, path: Path | None) -> tuple[Path | None, bool]:
    """Decide what is written and shown.

    Args:
        options: as asked for.
        live: the source is a camera or behaves like one.
        path: file on disk the source is read from, or None.

    Returns:
        Video file to write or None, and whether to open a window.

    Raises:
        UsageError: if nothing would come out, or the video has no name or that of the scores.
    """
    output = None if options.output in (None, NO_VIDEO) else Path(str(options.output))
    if options.output is None and not live:
        if path is not None:
            output = default_output(path)
        elif options.scores is None and not options.show:
            raise UsageError(
                f"{options.source}: no name for the output; give one, as out.mp4, or --show"
            )
    scores = options.scores_file
    if output is not None and scores is not None and realpath(output) == realpath(scores):
        raise UsageError(f"{output}: is the video and --scores, too; give two names")
    silent = output is None and options.scores is None
    show = options.show if options.show is not None else live and silent
    if silent and not show:
        raise UsageError("nothing would come out; give an OUTPUT, --scores or --show")
    return output, show


def pick_batch(options: Options, *, watched: bool) -> int | None:
    """Frames computed at once; None for as many as are quickest with the engine.

    Args:
        options: as asked for.
        watched: frames are from a live source or shown in a window, which shows a frame when it
            comes, and whose keys change what is explained from there.

    Raises:
        UsageError: several were asked for of a watched run.
    """
    if not watched:
        return options.batch
    if options.batch not in (None, 1):
        raise UsageError(
            f"--batch {options.batch}: frames of a camera, or in a window, are computed one by "
            "one; leave it out, or give --headless for a file"
        )
    return 1


def engine_wishes(batch: int | None, only: Aim, *, watched: bool) -> dict[str, Any]:
    """What `engines.open_engine` is told of a run; what is built ahead has to be the same.

    Args:
        batch: see `pick_batch`.
        only: what is explained from the first frame on.
        watched: keys go on to other heads, and frames come one by one.
    """
    if watched:
        return {"batch": 1, "calls": 1, "aims": None}
    return {"batch": batch, "calls": None, "aims": (only,)}


def check_encoder(options: Options, video: Path | None) -> None:
    """Refuse options of the encoder where no video is written.

    Raises:
        UsageError: naming them.
    """
    if video is None and options.encoder:
        given = ", ".join(f"--{name}" for name in options.encoder)
        raise UsageError(f"{given}: no video is written; leave it out, or give an OUTPUT")

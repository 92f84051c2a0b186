"""The Python API: explain a video frame by frame, or pictures one by one."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self, Unpack

import numpy as np
from numpy.typing import NDArray

from engines import Engine, Explanation, FrameError, Target, open_engine, pick_aim
from nem.bundle import Bundle, open_bundle
from nem.explanation import Aim
from nem.pictures import no_pictures
from stream.aim import AimDial
from stream.errors import UsageError
from stream.frame import Frame
from stream.overlay import Overlay, Style
from stream.pipeline import Pipeline
from stream.shrink import shrink_rgb
from stream.sources import Source, open_source
from stream.sources.choose import Wishes
from stream.temporal import Smoother

DEFAULT_BUNDLE = "nem-tiny"


class Explainer:
    """A model with its explainer, ready to run. Use `load`; close it, or use `with`.

        with Explainer.load("nem-tiny") as explainer:
            explanation = explainer(image)
            for frame, explanation in explainer.explain("clip.mp4"):
                ...

    Args:
        engine: open engine, closed by `close`.

    Attributes:
        engine: what runs the model.

    Raises:
        UsageError: `engine` is none.
    """

    def __init__(self, engine: Engine) -> None:
        if not isinstance(engine, Engine):
            raise UsageError(
                f"Explainer: expected an open engine, got {type(engine).__name__}; to open a "
                "bundle: Explainer.load(bundle)"
            )
        self.engine = engine

    @classmethod
    def load(
        cls,
        bundle: str | Path | Bundle = DEFAULT_BUNDLE,
        *,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        batch: int | None = 1,
        aims: Sequence[Aim] | None = None,
    ) -> Self:
        """Open a bundle with an engine.

        Args:
            bundle: opened, or name of an embedded bundle, a folder, or a hub id.
            engine: as "openvino"; see `engines.open_engine`, also for the next two.
            device: as "cpu".
            precision: as "f32".
            batch: frames of a file that `explain` computes at once; None: as many, and in as many
                runs side by side, as are quickest. One picture then takes longer.
            aims: all that will be asked for, as ["class"]; None for all that the bundle explains.

        Raises:
            BundleError: the bundle can't be opened.
            EngineError: the engine can't be had, or can't run the bundle.
        """
        calls = None if batch is None else 1
        return cls(
            open_engine(bundle, engine, device, precision, batch=batch, calls=calls, aims=aims)
        )

    def __call__(
        self,
        image: NDArray[np.uint8],
        explain: Aim | None = None,
        target: Target | None = None,
    ) -> Explanation:
        """Explain one picture or a batch.

        Args:
            image: RGB uint8, (H, W, 3) or (N, H, W, 3), of any size.
            explain: "embedding", "class", "ranking" or "target"; None is the bundle's first, or
                "target" with a target.
            target: class to explain, by name or number, or one for each picture.

        Returns:
            The explanation; N is 1 for a single picture.

        Raises:
            FrameError: any other shape or dtype.
            OptionError: no such aim or class here.
        """
        if trouble := no_pictures(image):
            raise FrameError(f"image: {trouble}")
        frames = image[None] if image.ndim == 3 else image
        size = self.engine.frame_size
        if frames.shape[1:3] != size:  # as the engine would, sooner
            frames = np.stack([shrink_rgb(frame, size) for frame in frames])
        return self.engine.run(frames, explain, target)

    def explain(
        self,
        source: str | Path | int | Source,
        *,
        explain: Aim | None = None,
        target: int | str | None = None,
        style: Style | Overlay | None = None,
        smooth: bool | None = None,
        **wishes: Unpack[Wishes],
    ) -> Generator[tuple[Frame, Explanation], None, None]:
        """Explain a source frame by frame: all of a file, the newest of a camera.

        Decoding, model and drawing run in other threads, a few frames ahead of the loop.
        Leaving the loop early stops them once the generator is closed: at once where nothing else
        refers to it, else by its `close`. Until then OpenCV works with one thread in the whole
        process. What was skipped or repaired is in the `counts` of a source that you open yourself.

        Args:
            source: video file, pictures, camera number or path, "demo"; or an open source, which
                is closed at the end.
            explain: as in `__call__`.
            target: likewise, one for all frames.
            style: draw on the frames, as "heat"; None gives them as they came.
            smooth: steady the masks over time; None does it for live sources only.
            **wishes: width, height, fps, ... of `stream.sources.open_source`.

        Yields:
            Each frame with its explanation (N = 1), in order.

        Raises:
            SourceError: the source can't be opened or read on.
            UsageError: an option doesn't fit, as a wish about a source that is open.
            EngineError: the model can't be run.
        """
        with closing(_opened(source, wishes)) as opened:
            live = opened.info.live
            pipeline = Pipeline(
                opened,
                self.engine,
                overlay=style if style is None or callable(style) else Overlay(style),
                smoother=Smoother() if (live if smooth is None else smooth) else None,
                aim=AimDial(self.engine, explain, target),
            )
            with closing(pipeline.frames()) as frames:
                yield from frames

    def close(self) -> None:
        """Free the model. Closing twice is fine."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def explain(
    source: str | Path | int | Source,
    bundle: str | Path | Bundle = DEFAULT_BUNDLE,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    explain: Aim | None = None,
    target: int | str | None = None,
    style: Style | Overlay | None = None,
    smooth: bool | None = None,
    **wishes: Unpack[Wishes],
) -> Generator[tuple[Frame, Explanation], None, None]:
    """Explain a source frame by frame, in one line.

        for frame, explanation in stream.explain("clip.mp4"):
            print(frame.pts_seconds, explanation.top(1))

    Nothing is opened before the first frame is asked for. To leave early and go on with other
    things, close it: `with contextlib.closing(stream.explain(...)) as results:`.

    Args:
        source: as in `Explainer.explain`, also `style`, `smooth` and `wishes`.
        bundle: as in `Explainer.load`, also `engine`, `device` and `precision`.
        engine: runtime.
        device: where it runs.
        precision: arithmetic.
        explain: what; as in `Explainer.explain`, also `target`.
        target: class.
        style: draw on the frames.
        smooth: steady the masks over time.
        **wishes: of the source.

    Yields:
        Each frame with its explanation (N = 1), in order.

    Raises:
        SourceError, UsageError, BundleError, EngineError: see `Explainer`.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(closing(_opened(source, wishes)))
        model = open_bundle(bundle)
        explainer = Explainer.load(
            model,
            engine=engine,
            device=device,
            precision=precision,
            batch=1 if opened.info.live else None,
            aims=(pick_aim(model.manifest.heads, explain, target),),
        )
        stack.enter_context(explainer)
        frames = explainer.explain(
            opened, explain=explain, target=target, style=style, smooth=smooth
        )
        yield from stack.enter_context(closing(frames))


def _opened(source: str | Path | int | Source, wishes: Wishes) -> Source:
    """The source, opened as wished, or as it is."""
    if not isinstance(source, Source):
        return open_source(source, **wishes)
    if wishes:
        source.close()
        raise UsageError(f"{', '.join(wishes)}: the source is open already; give it when opening")
    return source

import threading
from contextlib import closing

import numpy as np
import pytest

import stream
from engines import EngineClosed, FakeEngine, FrameError, OptionError, file_batch, open_engine
from nem.explanation import AIMS, METHOD_OF
from tests.builders import make_clip
from tests.stream.cli.support import make_paper_bundle
from tests.stream.fakes import FakeSource


@pytest.fixture
def bundle(tmp_path):
    return make_paper_bundle(tmp_path / "dummy")


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip.mp4", frames=40)


def our_threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("nem-")]


def test_a_video_frame_by_frame(clip, bundle):
    seen = []
    for frame, explanation in stream.explain(clip, bundle, engine="fake"):
        assert explanation.mask.shape == (1, 32, 32)
        assert frame.y.shape == (64, 96)
        seen.append(frame.index)
    assert seen == list(range(40))
    assert our_threads() == []


def test_leaving_the_loop_early_ends_all(clip, bundle):
    with closing(stream.explain(clip, bundle, engine="fake")) as results:
        for frame, _ in results:
            if frame.index == 3:
                break
    assert our_threads() == []


def test_a_plain_break_ends_all_too(clip, bundle):
    for frame, _ in stream.explain(clip, bundle, engine="fake"):
        if frame.index == 3:
            break
    assert our_threads() == []


def test_an_error_in_the_loop_ends_all(clip, bundle):
    def loop():
        for _ in stream.explain(clip, bundle, engine="fake"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        loop()
    del caught  # its traceback holds the loop, and so the generator
    assert our_threads() == []


def test_frames_come_untouched_unless_a_style_is_asked_for():
    given = next(iter(FakeSource(1)))
    explainer = stream.Explainer(FakeEngine(input_size=(16, 16)))
    plain = next(explainer.explain(FakeSource(1)))[0]
    drawn = next(explainer.explain(FakeSource(1), style="dim"))[0]
    wide = next(explainer.explain(FakeSource(1), style=stream.Overlay("side")))[0]
    assert np.array_equal(plain.y, given.y)
    assert not np.array_equal(drawn.y, given.y)
    assert wide.width == 2 * given.width


def masks(explainer, *, live, smooth):
    found = explainer.explain(FakeSource(4, live=live), smooth=smooth)
    return np.concatenate([explanation.mask for _, explanation in found])


def test_smoothing_is_for_live_sources_unless_asked_for():
    explainer = stream.Explainer(FakeEngine(input_size=(16, 16)))
    raw = masks(explainer, live=False, smooth=False)
    smoothed = masks(explainer, live=False, smooth=True)
    assert np.array_equal(raw[0], smoothed[0])
    assert not np.array_equal(raw[1:], smoothed[1:])
    assert np.array_equal(masks(explainer, live=False, smooth=None), raw)


def test_live_sources_are_smoothed_if_nothing_is_said(bundle, monkeypatch):
    made = []

    def smoother():
        made.append(1)
        return lambda frame, explanation: explanation

    monkeypatch.setattr("stream.explainer.Smoother", smoother)
    for live, smooth, wanted in ((True, None, 1), (True, False, 0), (False, None, 0)):
        made.clear()
        assert list(stream.explain(FakeSource(2, live=live), bundle, engine="fake", smooth=smooth))
        assert len(made) == wanted, (live, smooth)
    assert list(stream.explain(FakeSource(2), bundle, engine="fake", smooth=True))
    assert made == [1]


def test_a_file_is_computed_in_batches_and_a_live_source_frame_by_frame(clip, monkeypatch):
    asked, told = [], []

    def open_recorded(*given, **options):
        engine = open_engine(*given, **options)
        asked.append(engine.batch)
        told.append((engine.name, engine.device.lower(), engine.precision))
        return engine

    monkeypatch.setattr("stream.explainer.open_engine", open_recorded)
    found = [frame.index for frame, one in stream.explain(clip) if len(one.mask) == 1]
    assert found == list(range(40))
    wanted = {"engine": "eager", "device": "cpu", "precision": "bf16"}
    assert list(stream.explain(FakeSource(3, live=True), **wanted))
    assert told[1] == tuple(wanted.values())
    assert asked == [file_batch("openvino"), 1]
    assert asked[0] > 1


@pytest.mark.parametrize(
    ("asked", "aim"),
    [({}, "embedding"), ({"explain": "ranking"}, "ranking"), ({"target": "grey"}, "target")],
)
def test_only_what_is_asked_for_is_computed(clip, tmp_path, monkeypatch, asked, aim):
    bundle = make_paper_bundle(tmp_path / "all", heads=AIMS)
    opened = []

    def open_recorded(*given, **options):
        opened.append(open_engine(*given, **options))
        return opened[0]

    monkeypatch.setattr("stream.explainer.open_engine", open_recorded)
    explanation = next(stream.explain(clip, bundle, engine="fake", **asked))[1]
    assert opened[0].aims == (aim,)
    assert explanation.method == METHOD_OF[aim]


def test_an_explainer_takes_what_will_be_asked_for(tmp_path):
    bundle = make_paper_bundle(tmp_path / "all", heads=AIMS)
    image = np.zeros((20, 30, 3), np.uint8)
    with stream.Explainer.load(bundle, engine="fake", aims=["class"]) as explainer:
        assert explainer(image).method == METHOD_OF["class"]
        with pytest.raises(OptionError, match="this engine"):
            explainer(image, "ranking")


def test_one_picture_or_a_batch(bundle):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 50, 70, 3), np.uint8)
    with stream.Explainer.load(bundle, engine="fake") as explainer:
        batch = explainer(pictures)
        single = explainer(pictures[1])
        assert batch.mask.shape == (3, 32, 32)
        assert np.array_equal(single.mask[0], batch.mask[1])
        assert single.scores.shape == (1, 3)
        for bad in (pictures[0, 0], pictures.astype(np.float32), [[1]]):
            with pytest.raises(FrameError, match="expected"):
                explainer(bad)
    with pytest.raises(EngineClosed):
        explainer(pictures[0])
    explainer.close()


def test_a_bundle_is_no_engine():
    with pytest.raises(stream.UsageError, match=r"open engine, got str; .* Explainer.load\(bundle"):
        stream.Explainer("nem-tiny")


def test_what_is_explained_is_an_argument():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 50, 70, 3), np.uint8)
    with stream.Explainer(FakeEngine(input_size=(16, 16))) as explainer:
        assert explainer(pictures).method == "nem-u"
        assert explainer(pictures, explain="ranking").method == "ra-nem"
        dark = explainer(pictures, target="dark")
        assert (dark.method, dark.target.tolist()) == ("nemt-target", [1, 1, 1])
        assert explainer(pictures, target=[0, -1, 3]).target.tolist()[::2] == [0, 3]
        for given, reason in (
            ({"explain": "pixels"}, "embedding, class, ranking, target"),
            ({"target": "drak"}, "nearest: dark"),
            ({"explain": "class", "target": "dark"}, "goes with explain target"),
        ):
            with pytest.raises(OptionError, match=reason):
                explainer(pictures, **given)
            with pytest.raises(OptionError, match=reason):
                next(explainer.explain(FakeSource(2), **given))
    assert our_threads() == []


def test_a_video_of_one_class(clip, tmp_path):
    bundle = make_paper_bundle(tmp_path / "all", heads=AIMS)
    given = {"engine": "fake", "explain": "target", "target": "grey"}
    found = [e for _, e in stream.explain(clip, bundle, **given)]
    assert {(e.method, *e.target) for e in found} == {("nemt-target", 1)}
    assert len(found) == 40
    ranks = next(stream.explain(clip, bundle, engine="fake", explain="ranking", smooth=True))[1]
    assert (ranks.method, ranks.mask.mean()) == ("ra-nem", pytest.approx(0.5, abs=1e-5))
    with pytest.raises(OptionError, match="nearest: grey"):
        next(stream.explain(clip, bundle, engine="fake", target="gray"))
    assert our_threads() == []


def test_one_explainer_for_many_sources(clip, bundle):
    with stream.Explainer.load(bundle, engine="fake") as explainer:
        for _ in range(2):
            assert len(list(explainer.explain(clip))) == 40


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"source": "none.mp4"}, stream.SourceError),
        ({"bundle": "nonesuch"}, ValueError),
        ({"engine": "warp"}, ValueError),
        ({"style": "pink"}, stream.UsageError),
        ({"style": 3}, stream.UsageError),
        ({"explain": 3}, OptionError),
        ({"frames": 3}, stream.UsageError),
    ],
)
def test_errors_come_at_the_first_frame_and_leave_nothing_open(clip, bundle, change, error):
    given = {"source": clip, "bundle": bundle, "engine": "fake"} | change
    results = stream.explain(**given)
    with pytest.raises(error):
        next(results)
    assert our_threads() == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"style": "pink"}, stream.UsageError),
        ({"target": "no such class"}, ValueError),
        ({"fps": 3}, stream.UsageError),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_an_open_source_is_closed_after_an_error_too(bundle, change, error, whole):
    source = FakeSource(3)
    with stream.Explainer.load(bundle, engine="fake") as explainer:
        own = stream.explain(source, bundle, engine="fake", **change)
        results = own if whole else explainer.explain(source, **change)
        with pytest.raises(error):
            next(results)
    assert source.closed


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'explode'"):
        stream.explode  # noqa: B018
    assert "explain" in dir(stream)


def test_everything_promised_is_there():
    for name in stream.__all__:
        found = getattr(stream, name)
        assert found.__doc__ or name in {"Aim", "Style"}, name

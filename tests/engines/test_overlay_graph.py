"""The overlay drawn in the graph is the stream's own, within what 8-bit YUV rounds."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from engines import OptionError
from engines.fixed_graph import FixedGraph
from engines.overlay_graph import STRENGTH, OverlayGraph, heat_table
from nem.explanation import AIMS, Aim, Explanation
from stream.frame import Frame, frame_from_rgb
from stream.overlay import Overlay
from stream.palette import COLORMAPS
from tests.engines.conftest import SIZE, random_frames, tiny_model

# Levels of Y, U and V. The stream rounds its tables, their enlarged values and the blend to 8 bits.
LARGEST, MEAN = 3, 0.5
SIZES = [(SIZE, SIZE), (120, 160), (97, 171), (40, 200), (50, 46)]


def picture(height: int, width: int) -> np.ndarray:
    """A frame with all detail in its brightness: of finer colours YUV 4:2:0 keeps only means."""
    rgb = random_frames(1, height, width)[0]
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None]
    return np.rint(0.75 * grey + 0.25 * cv2.GaussianBlur(rgb, (0, 0), 3)).astype(np.uint8)


def yuv(rgb: np.ndarray) -> Frame:
    return frame_from_rgb(rgb, index=0, pts=0, time_base=Fraction(1, 30), captured_at=0.0)


def run(graph: FixedGraph, frames: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        return [value.numpy() for value in graph(torch.from_numpy(frames))]


def off(one: Frame, other: Frame) -> dict[str, np.ndarray]:
    return {p: np.abs(getattr(one, p).astype(int) - getattr(other, p)) for p in "yuv"}


def explanation(mask: np.ndarray) -> Explanation:
    return Explanation(mask, None, np.zeros((1, 1), np.float32), (), 0.0)


@pytest.mark.parametrize("precision", ["f32", "f16"])
@pytest.mark.parametrize("size", SIZES)
def test_draws_what_the_stream_draws(size: tuple[int, int], precision: str) -> None:
    frame = yuv(picture(*size))
    graph = OverlayGraph(tiny_model(), size, precision)
    drawn, mask, *_ = run(graph, frame.rgb()[None])
    assert (drawn.shape, drawn.dtype) == ((1, *size, 3), np.uint8)
    assert np.ptp(mask) > 0.4
    found, expected = yuv(drawn[0]), Overlay(label=0)(frame, explanation(mask))
    for plane, difference in off(found, expected).items():
        assert difference.max() <= LARGEST, plane
        assert difference.mean() <= MEAN, plane
    assert np.abs(found.y.astype(int) - frame.y).mean() > 10, "something has to be drawn"


def test_the_test_above_tells_other_colours() -> None:
    frame = yuv(picture(120, 160))
    drawn, mask, *_ = run(OverlayGraph(tiny_model(), (120, 160)), frame.rgb()[None])
    found, explained = yuv(drawn[0]), explanation(mask)

    def largest(**style: object) -> int:
        differences = off(found, Overlay(label=0, **style)(frame, explained))
        return max(int(difference.max()) for difference in differences.values())

    far = {colormap: largest(colormap=colormap) > LARGEST for colormap in COLORMAPS}
    assert [colormap for colormap, is_far in far.items() if not is_far] == ["inferno"]
    assert largest(strength=STRENGTH - 0.05) > LARGEST


def test_style_and_strength_are_the_streams_defaults() -> None:
    default = Overlay()
    assert (default.style, default.colormap, default.strength) == ("heat", "inferno", STRENGTH)
    table = heat_table()
    assert (table.shape, table.dtype) == ((256, 4), torch.float32)
    assert table[0].tolist() == [0, 0, 0, 1]
    assert table[255, 3].item() == pytest.approx(1 - STRENGTH)


@pytest.mark.parametrize("size", [(SIZE, SIZE), (90, 130), (30, 130)])
def test_nothing_is_drawn_at_mask_0_and_the_brightest_colour_at_mask_1(
    size: tuple[int, int],
) -> None:
    graph = OverlayGraph(tiny_model(), size)
    frames = torch.from_numpy(random_frames(2, *size))
    copy = frames.clone()
    assert torch.equal(graph.paint(frames, torch.zeros(2, SIZE, SIZE)), frames)
    drawn = graph.paint(frames, torch.ones(2, SIZE, SIZE))
    top = heat_table()[255]
    expected = frames * top[3] + top[:3]
    assert (drawn - expected).abs().max() <= 0.51
    assert torch.equal(frames, copy)
    # Sums in another order may leave [0, 1] by a rounding.
    beyond = graph.paint(frames, torch.full((2, SIZE, SIZE), 1.0 + 1e-6))
    assert torch.equal(beyond, drawn)


def test_a_side_that_shrinks_is_averaged_beside_one_that_grows() -> None:
    graph = OverlayGraph(tiny_model(), (SIZE // 4, 2 * SIZE))
    stripes = torch.arange(SIZE)[:, None].expand(SIZE, SIZE) % 4 == 0
    drawn = graph.paint(
        torch.zeros(1, SIZE // 4, 2 * SIZE, 3, dtype=torch.uint8), stripes[None].float()
    )
    assert (drawn - heat_table()[255, :3] / 4).abs().max() <= 0.51


def test_all_other_outputs_are_those_of_the_fixed_graph() -> None:
    model, frames = tiny_model(), random_frames(2, 70, 90)
    _, *found = run(OverlayGraph(model, (70, 90)), frames)
    for value, expected in zip(found, run(FixedGraph(model, (70, 90)), frames), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_half_precision_moves_the_picture_by_a_level_at_most() -> None:
    size = (100, 150)
    frames, mask = torch.from_numpy(random_frames(1, *size)), torch.rand(1, SIZE, SIZE)
    exact = OverlayGraph(tiny_model(), size).paint(frames, mask).int()
    for precision in ("f16", "bf16"):
        drawn = OverlayGraph(tiny_model(), size, precision).paint(frames, mask).int()
        assert (drawn - exact).abs().max() <= 1


@pytest.mark.parametrize(
    ("aims", "asked", "drawn"),
    [
        (AIMS, None, "embedding"),
        (AIMS, "target", "target"),
        (("ranking", "class"), None, "class"),
    ],
)
def test_draws_the_aim_asked_for(aims: tuple[Aim, ...], asked: Aim | None, drawn: Aim) -> None:
    graph = OverlayGraph(tiny_model(aims=aims), aim=asked)
    assert graph.aim == drawn
    frames = random_frames(1, SIZE, SIZE)
    picture, *maps = run(graph, frames)
    mask = torch.from_numpy(maps[aims.index(drawn)])
    np.testing.assert_array_equal(picture, graph.paint(torch.from_numpy(frames), mask).numpy())


@pytest.mark.parametrize(
    ("aims", "asked", "say"),
    [
        (AIMS, "ranking", "overlay of ranking, the model can draw: embedding, class, target"),
        (("class",), "target", "overlay of target, the model can draw: class"),
        (("ranking",), None, "overlay asked for, the model can draw: nothing"),
    ],
)
def test_refuses_what_it_can_not_draw(aims: tuple[Aim, ...], asked: Aim | None, say: str) -> None:
    with pytest.raises(OptionError, match=say):
        OverlayGraph(tiny_model(aims=aims), aim=asked)

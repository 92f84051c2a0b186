"""Pictures that stay where they were decoded; here on torch's CPU, by the code of a GPU."""

from contextlib import contextmanager

import av
import numpy as np
import pytest
import torch

from engines import surface
from engines.cuda_memory import DeviceMemoryError
from engines.errors import EngineError
from engines.surface import PITCH, Surface, torch_trouble, torchs_context
from stream.paint import is_fine, tint
from stream.palette import dim_tints, heat_tints
from stream.shrink import shrink
from tests.builders import make_frame

CPU = torch.device("cpu")
SIZES = [(64, 96), (66, 98), (2, 2), (720, 1280), (30, 258)]


def nv12(frame) -> av.VideoFrame:
    """A frame of the stream as NVDEC gives it, rows padded."""
    picture = av.VideoFrame(frame.width, frame.height, "nv12")
    luma, chroma = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        for plane in picture.planes
    )
    luma[:, : frame.width] = frame.y
    chroma[:, 0 : frame.width : 2], chroma[:, 1 : frame.width : 2] = frame.u, frame.v
    return picture


def taken(frame) -> Surface:
    return Surface.take(nv12(frame).planes)


def noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return make_frame(height, width, rgb=rgb)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_taken_comes_back(size):
    frame = noise(*size)
    picture = taken(frame)
    assert picture.size == size
    for found, plane in zip(picture.planes(), (frame.y, frame.u, frame.v), strict=True):
        np.testing.assert_array_equal(found, plane)


def test_the_decoders_memory_is_not_kept():
    frame = noise(64, 96)
    decoded = nv12(frame)
    picture = Surface.take(decoded.planes)
    for plane in decoded.planes:
        np.frombuffer(memoryview(plane), np.uint8)[:] = 0
    for found, plane in zip(picture.planes(), (frame.y, frame.u, frame.v), strict=True):
        np.testing.assert_array_equal(found, plane)


@pytest.mark.parametrize("size", SIZES)
def test_colour_follows_luma_as_nvenc_takes_it(size):
    """An encoder is told where luma begins and how far its rows are apart, and no more."""
    picture = Surface(*size, CPU)
    pitch = picture.y.stride(0)
    assert size[0] == 2 or pitch == picture.uv.stride(0)  # one row has no next
    assert pitch % PITCH == 0
    assert picture.uv.data_ptr() == picture.y.data_ptr() + pitch * size[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [(1, 1), (2, 1), (7, 3)])
def test_planes_thinned_out(size, steps):
    frame = noise(*size)
    luma, chroma = steps
    found = taken(frame).planes(steps)
    expected = frame.y[::luma, ::luma], frame.u[::chroma, ::chroma], frame.v[::chroma, ::chroma]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_planes_are_waited_for_and_in_host_memory(monkeypatch):
    """Copies from a GPU go on after they were asked for; whatever torch makes things on."""
    picture, waited = taken(noise(64, 96)), []
    monkeypatch.setattr(Surface, "_finish", lambda _: waited.append(True))
    with torch.device("meta"):
        assert all(isinstance(plane, np.ndarray) for plane in picture.planes())
    assert waited == [True]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wanted", [(32, 32), (48, 20), (128, 160)])
def test_small_pictures_are_those_of_the_cpu(size, wanted):
    frame = noise(*size)
    planes = frame.y, frame.u, frame.v
    for found, plane in zip(taken(frame).small(wanted), planes, strict=True):
        assert (found.shape, found.dtype) == (wanted, np.uint8)
        difference = np.abs(found.astype(int) - shrink(plane, wanted))
        assert difference.max() <= 1
        assert difference.mean() < 0.25


@pytest.mark.parametrize("size", [*SIZES, (20, 20), (16, 300)])
@pytest.mark.parametrize("tints", [heat_tints, dim_tints])
def test_drawn_as_on_the_cpu(size, tints):
    frame = noise(*size)
    x = np.linspace(0, 255, 64)
    levels = np.rint((x[:, None] + x[None, ::-1]) / 2).astype(np.uint8)
    table = tints(*(("turbo",) if tints is heat_tints else ()), 0.8, frame.colour)
    picture = taken(frame)
    drawn = picture.tinted(levels, table.table.T.copy(), squares=is_fine(size, levels))
    expected = tint((frame.y, frame.u, frame.v), levels, table)
    for found, plane in zip(drawn.planes(), expected, strict=True):
        difference = np.abs(found.astype(int) - plane)
        assert difference.max() <= 2
        assert difference.size == 1 or difference.mean() < 0.5
    np.testing.assert_array_equal(picture.planes()[0], frame.y)  # left as it was


def test_bright_places_stay_bright():
    """Sums beyond 255 end there and do not begin anew."""
    frame = make_frame(16, 16, rgb=np.full((16, 16, 3), 255, np.uint8))
    tables = np.stack([np.full(256, level, np.uint8) for level in (255, 200, 250, 250)])
    drawn = taken(frame).tinted(np.zeros((4, 4), np.uint8), tables)
    assert {int(plane.min()) for plane in drawn.planes()} == {255}


def test_a_corner_pasted():
    frame = noise(64, 96)
    y, u, v = (
        np.full(size, level, np.uint8) for size, level in (((6, 10), 1), ((3, 5), 2), ((3, 5), 3))
    )
    picture = taken(frame)
    picture.paste(y, u, v)
    for found, plane, piece in zip(
        picture.planes(), (frame.y, frame.u, frame.v), (y, u, v), strict=True
    ):
        expected = plane.copy()
        expected[: piece.shape[0], : piece.shape[1]] = piece
        np.testing.assert_array_equal(found, expected)


def test_an_encoder_takes_it_where_it_is():
    frame = noise(66, 98)
    picture = taken(frame)
    seen = av.VideoFrame.from_dlpack((picture.y, picture.uv), "nv12")
    np.testing.assert_array_equal(seen.to_ndarray()[:66], frame.y)
    picture.y.fill_(7)
    assert (seen.to_ndarray()[:66] == 7).all()  # no copy


class Refusing:
    """A plane that is not handed over."""

    def __dlpack__(self):
        raise BufferError("of another device\nmore lines")


def test_what_is_not_handed_over_is_told_in_a_line():
    said = r"^pictures on the GPU: not handed over: of another device; .*--decode cpu\)$"
    with pytest.raises(EngineError, match=said):
        Surface.take([Refusing(), Refusing()])
    with pytest.raises(EngineError, match=said), taken(noise(64, 96)).complete():
        Refusing().__dlpack__()


def test_a_device_that_fails_is_told_in_a_line(monkeypatch):
    picture = taken(noise(64, 96))

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines")

    monkeypatch.setattr(surface, "_blend", fail)
    with pytest.raises(DeviceMemoryError, match=r"^pictures on the GPU: .*--decode cpu") as told:
        picture.tinted(np.zeros((4, 4), np.uint8), np.zeros((4, 256), np.uint8))
    assert "\n" not in str(told.value)
    with pytest.raises(EngineError, match="making a picture failed on cpu"):
        Surface(2**40, 2**20, CPU)


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs of which this thread uses the second; gives what torch was asked for, in order."""
    asked = []

    @contextmanager
    def current(device):
        asked.append(f"to {device}")
        yield
        asked.append("back")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: asked.append(f"work on {device}"))
    return asked


def test_the_context_of_torch(monkeypatch, gpus):
    """FFmpeg takes the context it finds, whatever GPU the thread has used before."""
    assert torch_trouble() is None
    with torchs_context():
        assert gpus[-2:] == ["to cuda:0", "work on cuda:0"]
    assert gpus[-1] == "back"
    gpus.clear()
    with torchs_context(CPU):
        assert gpus == []

    def fail(*_, **__):
        raise RuntimeError("CUDA error: out of memory\nCompile with ...")

    monkeypatch.setattr(torch, "zeros", fail)
    assert torch_trouble() == "torch can't use the GPU (CUDA error: out of memory)"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_trouble() == "torch sees no GPU"


def test_all_work_is_on_the_default_stream(monkeypatch):
    """On which FFmpeg's is; who asks for planes may be using another."""
    events = []

    @contextmanager
    def stream(which):
        events.append(which)
        yield
        events.append("back")

    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: f"default of {device}")
    with surface._work(torch.device("cuda", 0), "drawing"):
        events.append("work")
    assert events == ["default of cuda:0", "work", "back"]


def test_handed_over_complete_and_in_its_context(monkeypatch):
    picture, events = taken(noise(64, 96)), []

    @contextmanager
    def context(device):
        events.append(device)
        yield
        events.append("left")

    monkeypatch.setattr(surface, "torchs_context", context)
    monkeypatch.setattr(Surface, "_finish", lambda _: events.append("finished"))
    with picture.complete():
        events.append("handed over")
    assert events == [CPU, "finished", "handed over", "left"]

    def fail(_):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore")

    monkeypatch.setattr(Surface, "_finish", fail)
    with (
        pytest.raises(EngineError, match="completing a picture failed on cpu") as told,
        picture.complete(),
    ):
        pass
    assert "\n" not in str(told.value)

"""Captures of torch over a stand-in for its CUDA: one that fails leaves the allocator as it was."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from engines.torch_capture import capture

POOL = (0, 7)


@dataclass
class Allocator:
    """Torch's, as far as captures go: it hears of an end only where the driver ended well."""

    invalid: bool = False
    began: list[tuple[int, int]] = field(default_factory=list)
    pools: list[tuple[int, int]] = field(default_factory=list)

    def end(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.began:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.began.remove(pool)

    def release(self, device: int, pool: tuple[int, int]) -> None:
        self.pools.remove(pool)


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    found = Allocator()

    class Graph:
        def capture_begin(self, pool: tuple[int, int], capture_error_mode: str) -> None:
            assert capture_error_mode == "thread_local"
            found.began.append(pool)
            found.pools.append(pool)

        def capture_end(self) -> None:
            if found.invalid:
                raise torch.AcceleratorError("operation failed due to a previous error")
            found.end(0, found.began[-1])

    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.graph_pool_handle", lambda: POOL)
    monkeypatch.setattr("torch.cuda.CUDAGraph", Graph)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", found.end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", found.release, raising=False)
    return found


def test_gives_what_was_captured_and_the_graph(allocator: Allocator) -> None:
    graph, made = capture(lambda: list(allocator.began))
    assert isinstance(graph, torch.cuda.CUDAGraph)
    assert made == [POOL], "not made within the capture"
    assert (allocator.began, allocator.pools) == ([], [POOL])  # the graph keeps its memory


def test_work_that_fails_is_told_and_forgotten(allocator: Allocator) -> None:
    def work() -> None:
        allocator.invalid = True
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        capture(work)
    assert (allocator.began, allocator.pools) == ([], [])


def test_a_capture_that_another_thread_broke_is_told_and_forgotten(allocator: Allocator) -> None:
    with pytest.raises(torch.AcceleratorError, match="previous error"):
        capture(lambda: setattr(allocator, "invalid", True))
    assert (allocator.began, allocator.pools) == ([], [])


def test_work_that_fails_within_a_sound_capture(allocator: Allocator) -> None:
    """Then torch has heard of the end itself."""

    def work() -> None:
        raise ValueError("not of CUDA")

    with pytest.raises(ValueError, match="not of CUDA"):
        capture(work)
    assert allocator.began == []

"""What torch puts on a stream, captured once into a CUDA graph.

`torch.cuda.graph` leaves the allocator capturing where a capture fails, for want of memory or as
another thread waited for the whole GPU: from then on the process gives no memory back, and what
fits no longer does. And it hides why.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import torch

Made = TypeVar("Made")


def capture(work: Callable[[], Made]) -> tuple[Any, Made]:
    """What `work` puts on the current stream, which is not to be the default one.

    Other threads may use the GPU meanwhile, but for waiting for all of it: see `engines.alone`.

    Returns:
        The `torch.cuda.CUDAGraph`, and what `work` returned: each replay computes it anew.

    Raises:
        RuntimeError: it can't be captured; torch's allocator is as it was.
    """
    cuda: Any = torch.cuda
    cuda.synchronize()
    cuda.empty_cache()
    graph, pool = cuda.CUDAGraph(), cuda.graph_pool_handle()
    ended = False
    try:
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            made = work()
        except BaseException:
            with suppress(RuntimeError):  # what `work` raised tells more
                graph.capture_end()
                ended = True
            raise
        graph.capture_end()
        ended = True
    finally:
        if not ended:
            _forget(pool)
    return graph, made


def _forget(pool: tuple[int, int]) -> None:
    """Tell torch's allocator that a capture is over, which it only hears of those that succeed."""
    device = torch.cuda.current_device()
    with suppress(RuntimeError, AttributeError):  # it had not begun, or other functions do it
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)

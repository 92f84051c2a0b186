"""The random masks of RISE and RELAX. numpy; torch only where a tensor is asked for.

A coarse grid of cells is kept or hidden at random, interpolated, and cropped at a random offset,
so that no cell border has a fixed place. Petsiuk et al. 2018 (RISE), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nem.errors import ArgumentError

if TYPE_CHECKING:
    import torch

_BLOCK = 256
"""Masks drawn from one random stream: mask k is found without drawing all before it."""


@dataclass(frozen=True)
class RandomMasks:
    """An endless, reproducible row of masks: number k depends on the settings and k alone.

    The masks may be used for any number of pictures and asked for in any order and in any parts.

    Attributes:
        size: side in pixels.
        grid: cells per side, h = w in the paper.
        keep: probability p that a cell is kept; each pixel of a mask has this mean.
        seed: of the random numbers, >= 0.

    Raises:
        ArgumentError: a setting outside its range.
    """

    size: int
    grid: int = 7
    keep: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.grid <= self.size:
            raise ArgumentError(f"grid {self.grid}: allowed are 1 to {self.size}, the side")
        if not 0 < self.keep < 1:
            raise ArgumentError(f"keep {self.keep}: a probability between 0 and 1 is needed")
        if self.seed < 0:
            raise ArgumentError(f"seed {self.seed}: at least 0 is needed")

    def arrays(self, start: int, stop: int) -> NDArray[np.float32]:
        """Masks number `start` to `stop` - 1, float32 (n, 1, size, size) in [0, 1]."""
        cells, rows, columns = self._draw(start, stop)
        made: NDArray[np.float32] = self._render(cells, self._weights[rows], self._weights[columns])
        return made

    def tensors(self, start: int, stop: int, device: torch.device | None = None) -> torch.Tensor:
        """As `arrays`, made on `device`; the same numbers but for rounding."""
        import torch

        cells, rows, columns = (torch.from_numpy(v).to(device) for v in self._draw(start, stop))
        weights = torch.from_numpy(self._weights).to(device)
        made: torch.Tensor = self._render(cells, weights[rows], weights[columns])
        return made

    def like(self, start: int, stop: int, x: Any) -> Any:
        """`arrays` or `tensors` on its device, whichever `x` is."""
        if isinstance(x, np.ndarray):
            return self.arrays(start, stop)
        return self.tensors(start, stop, x.device)

    @staticmethod
    def _render(cells: Any, rows: Any, columns: Any) -> Any:
        # Rounding may leave [0, 1] by 1e-7.
        return (rows @ cells @ columns.swapaxes(1, 2)).clip(0, 1)[:, None]

    @cached_property
    def _weights(self) -> NDArray[np.float32]:
        """Bilinear interpolation cropped at each offset, (C, size, grid).

        With C = ceil(size / grid) pixels per cell the whole is (grid + 1) C pixels wide, pixel
        centres aligned and ends clamped (align_corners=False), and the offset is below C.
        """
        cell = -(-self.size // self.grid)
        whole = (self.grid + 1) * cell
        centre = (np.arange(whole) + 0.5) * (self.grid / whole) - 0.5
        centre = centre.clip(0, self.grid - 1)
        weights = (1 - np.abs(centre[:, None] - np.arange(self.grid))).clip(0)
        crops = np.stack([weights[offset : offset + self.size] for offset in range(cell)])
        return crops.astype(np.float32)

    def _draw(
        self, start: int, stop: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Cells (n, grid, grid), 0 or 1, and offsets of rows and columns, each (n,)."""
        if not 0 <= start < stop:
            raise ArgumentError(f"masks {start} to {stop}: 0 <= start < stop is needed")
        blocks = range(start // _BLOCK, -(-stop // _BLOCK))
        drawn = np.concatenate([
            np.random.default_rng([self.seed, block]).random((_BLOCK, self.grid**2 + 2))
            for block in blocks
        ])  # fmt: skip
        skip = start - blocks[0] * _BLOCK
        drawn = drawn[skip : skip + stop - start]
        cells = (drawn[:, :-2] < self.keep).astype(np.float32)
        offsets = (drawn[:, -2:] * len(self._weights)).astype(np.int64)
        return cells.reshape(-1, self.grid, self.grid), offsets[:, 0], offsets[:, 1]

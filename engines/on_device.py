"""Engines that also take frames which are on the GPU already, and leave the answer there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.asked import class_numbers, pick_aim
from engines.base import Engine
from engines.batches import DeviceArrays, check_on_device
from engines.cuda_memory import DeviceArray
from engines.errors import OptionError
from engines.onnx_passes import EMBEDDING, SCORES, map_name
from nem.classes import Target
from nem.explanation import Aim


class DeviceEngine(Engine):
    """An engine that is built for a batch, the most frames at once."""

    def run_on_device(
        self, frames: Any, explain: Aim | None = None, target: Target | None = None
    ) -> DeviceArrays:
        """Explain frames that are on the GPU already; neither they nor the result leave it.

        Args:
            frames: RGB uint8 (N, *frame_size, 3), N up to `batch`, C-contiguous, with
                `__cuda_array_interface__`. Work on the stream it names is waited for.
            explain: as for `run`.
            target: as for `run`.

        Returns:
            Complete arrays on the GPU. They are the engine's own memory: the next run overwrites
            them, and `close` frees them.

        Raises:
            OptionError: the engine is not on a GPU; or as `run`.
            FrameError, EngineClosed: as `run`.
        """
        self._refuse_closed()
        if not self.device.startswith("cuda"):
            raise OptionError(f"engine {self.name}: runs on the {self.device} here; use run")
        count, stream = check_on_device(frames, self.frame_size, self.batch)
        aim = pick_aim(self.aims, explain, target, opened=True)
        classes = class_numbers(self.names, target, count) if aim == "target" else None
        with self._busy:
            self._refuse_closed()
            found = self._run_on_device(frames, classes, count, stream)
        return DeviceArrays(found[map_name(aim)], found.get(SCORES), found[EMBEDDING])

    @abstractmethod
    def _run_on_device(
        self, frames: Any, classes: NDArray[np.int64] | None, count: int, stream: int | None
    ) -> Mapping[str, DeviceArray]:
        """All outputs for `count` frames on the GPU, by name, see `run_on_device`.

        Args:
            frames: as there, checked.
            classes: as for `_run`.
            count: how many frames.
            stream: handle of the stream they are made on; None for none.
        """

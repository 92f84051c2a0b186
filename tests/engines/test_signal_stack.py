import os
import signal
import sys

import pytest

from engines import open_engine
from engines.signal_stack import kept_signal_stack
from nem.bundle import Bundle
from tests.engines.conftest import random_frames
from tests.native import signal_stack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are kept on Linux")


def test_openvino_leaves_the_signal_stack_alone(bundle: Bundle) -> None:
    before = signal_stack()
    first = open_engine(bundle, "openvino")
    assert signal_stack() == before
    second = open_engine(bundle, "openvino")
    first.run(random_frames(1, 64, 64))
    first.close()
    assert signal_stack() == before
    second.close()
    assert signal_stack() == before


def test_signals_are_handled_after_engines_were_closed_in_the_order_they_were_opened(
    bundle: Bundle,
) -> None:
    engines = [open_engine(bundle, "openvino") for _ in range(3)]
    for engine in engines:
        engine.close()
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def test_the_stack_comes_back_after_an_error_too() -> None:
    before = signal_stack()
    with pytest.raises(ValueError, match="no"), kept_signal_stack():
        raise ValueError("no")
    assert signal_stack() == before

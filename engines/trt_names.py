"""Names of an engine's inputs and outputs, told to Torch-TensorRT of any version.

It takes them since 2.14. Before, inputs are called as the graph calls them, which are the names
asked for here, and outputs are numbered: `output0`, `output1`. They are renamed while the engine
is built, so that it tells its names itself to every program that runs it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

_outputs: ContextVar[tuple[str, ...]] = ContextVar("outputs", default=())
"""Names for the network that this thread converts; none are left as they are."""


@contextlib.contextmanager
def naming(
    convert: Callable[..., Any], inputs: Sequence[str], outputs: Sequence[str]
) -> Iterator[dict[str, tuple[str, ...]]]:
    """Within it, `convert` called with the keywords that this gives makes engines of these names.

    Args:
        convert: Torch-TensorRT's own function.
        inputs: by which the graph calls its inputs.
        outputs: in the order of the graph's.

    Yields:
        More keywords for `convert`: it would swallow those that it does not know.
    """
    if "output_binding_names" in inspect.signature(convert).parameters:
        yield {"arg_input_binding_names": tuple(inputs), "output_binding_names": tuple(outputs)}
        return
    _teach_names()
    token = _outputs.set(tuple(outputs))
    try:
        yield {}
    finally:
        _outputs.reset(token)


@functools.cache
def _teach_names() -> None:
    """Let the converter rename what it numbered: nothing it offers gets at the network in time."""
    inside = importlib.import_module("torch_tensorrt.dynamo.conversion._TRTInterpreter")
    numbered = inside.TRTInterpreter.output

    def output(self: Any, target: str, args: Any, kwargs: Any) -> Any:
        made = numbered(self, target, args, kwargs)
        if names := _outputs.get():
            network = self.ctx.net
            marked = map(network.get_output, range(network.num_outputs))
            for tensor, name in zip(marked, names, strict=True):
                tensor.name = name
        return made

    inside.TRTInterpreter.output = output

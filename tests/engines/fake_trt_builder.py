"""A TensorRT that builds: its parser reads real files, its builder notes what it was asked for."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

KINDS = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
}


class Network:
    """What the parser made of a file: its ports, and the type of its convolutions."""

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.layers: list[Any] = []

    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))
    num_layers = property(lambda self: len(self.layers))

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    def get_output(self, index: int) -> Any:
        return self.outputs[index]

    def get_layer(self, index: int) -> Any:
        return self.layers[index]

    def read(self, content: bytes) -> None:
        graph = onnx.load_from_string(content).graph
        for ports, values in ((self.inputs, graph.input), (self.outputs, graph.output)):
            for value in values:
                kind = value.type.tensor_type
                shape = tuple(d.dim_value if d.dim_value else -1 for d in kind.shape.dim)
                ports.append(SimpleNamespace(name=value.name, shape=shape))
        weights = {w.name: KINDS[w.data_type] for w in graph.initializer}
        casts = {n.output[0]: KINDS[n.attribute[0].i] for n in graph.node if n.op_type == "Cast"}
        for node in graph.node:
            kind = (weights | casts).get(node.input[1]) if node.op_type == "Conv" else None
            output = SimpleNamespace(dtype=SimpleNamespace(name=kind))
            self.layers.append(
                SimpleNamespace(type=node.op_type, get_output=lambda _, output=output: output)
            )


class Config:
    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.pools: dict[str, int] = {}
        self.set: list[str] = []
        self.cleared: list[str] = []
        self.timings: bytes | None = None
        self.profiles: list[dict[str, Any]] = []
        self.add_optimization_profile = self.profiles.append

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def set_flag(self, flag: str) -> None:
        self.set.append(flag)

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def create_timing_cache(self, known: bytes) -> bytes:
        return known

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache == b"another GPU's":
            return False
        self.timings = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: memoryview(b"new " + (self.timings or b"")))


class Profile(dict[str, Any]):
    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self[name] = shapes


class Fake:
    """A tensorrt module, and what was made with it."""

    def __init__(self) -> None:
        self.networks: list[Network] = []
        self.configs: list[Config] = []
        self.refuse: str | None = None
        fake = self
        module = self.module = ModuleType("tensorrt")
        module.__version__ = "10.3.0.26"
        module.ILogger = type("ILogger", (), {"__init__": lambda self: None})
        module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        module.LayerType = SimpleNamespace(CONVOLUTION="Conv")
        module.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        module.BuilderFlag = SimpleNamespace(
            TF32="TF32", VERSION_COMPATIBLE="version", EXCLUDE_LEAN_RUNTIME="no lean"
        )

        class Builder:
            def __init__(self, logger: Any) -> None:
                self.logger = logger
                if fake.refuse == "builder":
                    logger.log(1, "CUDA initialization failure with error: 100")
                    raise TypeError("pybind11::init(): factory function returned nullptr")

            def create_network(self, flags: int) -> Network:
                fake.networks.append(Network(flags))
                return fake.networks[-1]

            def create_optimization_profile(self) -> Any:
                return Profile()

            def create_builder_config(self) -> Config:
                fake.configs.append(Config(fake))
                return fake.configs[-1]

            def build_serialized_network(self, network: Network, config: Config) -> Any:
                ranges = dict(*config.profiles)
                assert all(-1 not in p.shape or p.name in ranges for p in network.inputs)
                if fake.refuse == "build":
                    self.logger.log(1, "Error Code 10: Could not find any implementation")
                    return None
                return memoryview(b"engine")

        class OnnxParser:
            num_errors = 0

            def __init__(self, network: Network, logger: Any) -> None:
                self.network = network

            def parse(self, content: bytes) -> bool:
                try:
                    self.network.read(content)
                except DecodeError as error:
                    self.num_errors, self.reason = 1, f"Failed to parse\nthe model: {error}"
                    return False
                return True

            def get_error(self, index: int) -> Any:
                return SimpleNamespace(desc=lambda: self.reason)

        module.Builder, module.OnnxParser = Builder, OnnxParser

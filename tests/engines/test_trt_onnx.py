"""Engines of ONNX files: what is asked of TensorRT's builder, in a fake that reads real files."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

import engines.trt_onnx
from engines import EngineError, EngineUnavailable, OptionError
from engines.gpus import Gpu
from engines.trt_build import BuildOptions
from engines.trt_onnx import build_from_onnx
from nem.bundle import open_bundle

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

            def create_builder_config(self) -> Config:
                fake.configs.append(Config(fake))
                return fake.configs[-1]

            def build_serialized_network(self, network: Network, config: Config) -> Any:
                assert all(-1 not in port.shape for port in network.inputs)
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


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    made = Fake()
    monkeypatch.setitem(sys.modules, "tensorrt", made.module)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", made.module)
    monkeypatch.setattr(engines.trt_onnx, "find_gpus", lambda: (Gpu(0, "Orin", "8.7", "540"),))
    monkeypatch.setenv("NEM_CACHE", str(tmp_path))
    return made


def file(
    frames: tuple[int | str, ...] = (2, 40, 60, 3),
    kind: int = TensorProto.FLOAT16,
    outputs: tuple[str, ...] = ("mask_embedding",),
    name: str = "frames",
) -> bytes:
    """A small file of the project's form."""
    width = helper.tensor_dtype_to_np_dtype(kind).itemsize
    weights = helper.make_tensor("w", kind, (1, 1, 1, 1), bytes(width), raw=True)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], [outputs[0]])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, frames)],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, (1,)) for o in outputs],
        [weights],
    )
    return helper.make_model(graph).SerializeToString()


def test_sizes_the_file_leaves_free_are_fixed(fake: Fake) -> None:
    """The bundle's own graph needs no export: of any size, float32, stored as float16."""
    said: list[str] = []
    path = open_bundle("nem-tiny").graph_path
    options = BuildOptions((40, 60), "f32", batch=2)
    assert build_from_onnx(path, options, said.append) == b"engine"
    (network,) = fake.networks
    assert network.flags == 1 << 1
    assert {port.name: port.shape for port in network.inputs} == {
        "frames": (2, 40, 60, 3),
        "target": (2,),
    }
    assert said[0] == f"reading {path}"
    assert "for frames of 60x40, batch 2, f32 with tensorrt: may take" in said[1]
    (config,) = fake.configs
    assert (config.cleared, config.set, config.pools) == (["TF32"], [], {})


def test_options_arrive(fake: Fake) -> None:
    options = BuildOptions(batch=2, workspace_mb=64, version_compatible=True)
    build_from_onnx(file(), options)
    (config,) = fake.configs
    assert config.pools == {"workspace": 64 << 20}
    assert config.set == ["version", "no lean"]
    assert config.cleared == []
    build_from_onnx(file(kind=TensorProto.BFLOAT16), BuildOptions((40, 60), "bf16", 2))
    build_from_onnx(file(outputs=("overlay", "scores")), BuildOptions(batch=2, overlay=True))


def test_timings_are_kept_for_the_version_and_gpu(fake: Fake, tmp_path: Path) -> None:
    kept = tmp_path / "engines" / "timings-10.3.0.26-orin.bin"
    for before, after in ((None, b"new "), (b"new ", b"new new "), (b"another GPU's", b"new ")):
        if before is not None:
            kept.write_bytes(before)
        build_from_onnx(file(), BuildOptions(batch=2))
        assert kept.read_bytes() == after
    fake.refuse = "build"
    with pytest.raises(EngineError):
        build_from_onnx(file(), BuildOptions(batch=2))
    assert kept.read_bytes() == b"new "
    kept.unlink()
    fake.refuse = None
    build_from_onnx(file(), BuildOptions(batch=2, flavour="tensorrt-rtx"))
    assert list(kept.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "options", "say"),
    [
        (file(), {"batch": 1}, r"takes frames of shape \(2, 40, 60, 3\), asked for is \(1, 40"),
        (file(), {"batch": 2, "frame_size": (40, 61)}, r"asked for is \(2, 40, 61, 3\)"),
        (file(("n", "h", "w", 3)), {}, "frames of any size; say which"),
        (file(), {"batch": 2, "precision": "f32"}, "computes in f16, asked for is f32"),
        (file(kind=TensorProto.FLOAT), {"batch": 2}, "computes in f32, asked for is f16"),
        (file(), {"batch": 2, "overlay": True}, "overlay asked for, but the file draws none"),
        (file(outputs=("overlay",)), {"batch": 2}, "overlay not asked for, but the file draws one"),
    ],
)
def test_refuses_files_for_something_else(
    fake: Fake, content: bytes, options: dict[str, Any], say: str
) -> None:
    with pytest.raises(OptionError, match=say) as caught:
        build_from_onnx(content, BuildOptions(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "say"),
    [
        (b"no graph", r"graph: TensorRT 10\.3\.0\.26 can't read it: Failed to parse the model: "),
        (file(name="x"), r"input x of shape \(2, 40, 60, 3\), expected frames"),
        (file((2, 3)), r"input frames of shape \(2, 3\), expected frames"),
        (Path("/no/such.onnx"), "/no/such.onnx: can't be read: No such file"),
    ],
)
def test_files_that_can_not_be_read(fake: Fake, content: bytes | Path, say: str) -> None:
    with pytest.raises(EngineError, match=say) as caught:
        build_from_onnx(content, BuildOptions(batch=2))
    assert "\n" not in str(caught.value)


def test_refusals_tell_tensorrts_reason(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.refuse = "build"
    with pytest.raises(EngineError, match="Could not find any implementation; use another"):
        build_from_onnx(file(), BuildOptions(batch=2))
    fake.refuse = "builder"
    with pytest.raises(EngineUnavailable, match=r"CUDA initialization failure.* needs the GPU"):
        build_from_onnx(file(), BuildOptions(batch=2))
    monkeypatch.setattr(fake.module, "NetworkDefinitionCreationFlag", SimpleNamespace())
    fake.module.__version__ = "8.5.2"
    with pytest.raises(EngineUnavailable, match=r"8\.5\.2 found, 10 or newer .* JetPack 6"):
        build_from_onnx(file(), BuildOptions(batch=2))

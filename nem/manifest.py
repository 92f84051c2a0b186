"""The manifest of a bundle (`nem.json`): what is explained, by what, and made how. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from nem.explanation import Aim

FORMAT: Literal[4] = 4
"""The manifest version this package reads and writes."""

MANIFEST = "nem.json"
WEIGHTS = "weights.safetensors"
GRAPH = "graph.onnx"
CARD = "README.md"
PARTS = ("backbone.", "decoder.")
"""Prefixes of the names of a bundle's tensors."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[^\p{Cc}\p{Zl}\p{Zp}\u{202A}-\u{202E}\u{2066}-\u{2069}]*$")]
"""One line that steers no terminal, nor turns what follows: it is drawn, and written as JSON."""

# What fetches or reads weights from elsewhere, in timm and in `nem.backbone.create_backbone`: a
# bundle brings its own.
FOREIGN_ARGUMENTS = frozenset(
    {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
    | {"weights"}
)


class Frozen(BaseModel):
    """Values that stay as they are; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneInfo(Frozen):
    """The frozen model.

    Attributes:
        name: timm architecture name, without a hub prefix.
        kwargs: further arguments of `timm.create_model`.
        source: where the weights came from, for people.
        sha256: hash of its tensors, see `nem.bundle_io.state_sha256`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")]
    kwargs: dict[str, JsonValue] = {}
    source: str
    sha256: Sha256

    @field_validator("kwargs")
    @classmethod
    def _own_weights_only(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        if foreign := sorted(FOREIGN_ARGUMENTS & kwargs.keys()):
            raise ValueError(f"{', '.join(foreign)}: a bundle may not ask for weights elsewhere")
        return kwargs


class DecoderInfo(Frozen):
    """The decoder: its kind and the arguments of `nem.decoder.build_decoder`."""

    kind: Literal["lite", "paper"]
    kwargs: dict[str, JsonValue] = {}


class Manifest(Frozen):
    """Everything `nem.json` says.

    Attributes:
        format: version of this file.
        name: short name of the bundle.
        heads: what the decoder's heads explain, in order; the first is the default.
        fill: what replaced hidden pixels in training: the data mean, or noise around it.
        input_size: side of the square input, in pixels.
        mean: per-channel mean (RGB, of values in [0, 1]) taken off the input.
        std: per-channel deviation the input is divided by.
        classes: class names in the order of the logits, empty if unknown.
        backbone: the frozen model.
        decoder: the part that draws masks.
        files: SHA-256 of each file that must be intact, by file name.
        training: command, data, seed, versions: how the bundle was made.
        quality: measured figures, by name.
    """

    format: Literal[4] = FORMAT
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    heads: Annotated[tuple[Aim, ...], Field(min_length=1)]
    fill: Literal["mean", "noise"]
    input_size: Annotated[int, Field(ge=16, le=4096)]
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Positive, Positive, Positive]
    classes: tuple[Name, ...] = ()
    backbone: BackboneInfo
    decoder: DecoderInfo
    files: dict[str, Sha256]
    training: dict[str, JsonValue] = {}
    quality: dict[str, Finite] = {}

    @field_validator("heads")
    @classmethod
    def _each_once(cls, heads: tuple[Aim, ...]) -> tuple[Aim, ...]:
        if len(set(heads)) != len(heads):
            raise ValueError(f"heads {list(heads)}: each may be there once")
        return heads

    @model_validator(mode="after")
    def _names_both_files(self) -> Self:
        if set(self.files) != {WEIGHTS, GRAPH}:
            raise ValueError(f"files must name {WEIGHTS} and {GRAPH}, not {sorted(self.files)}")
        return self

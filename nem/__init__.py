"""The method of nem-stream: neural explanation masks, tensors in and tensors out.

Only what needs no torch is exported here; `nem.bundle_io`, `nem.model` and `nem.train` are
imported by those who need them.
"""

from nem.bundle import Bundle, Manifest, list_bundles, open_bundle
from nem.errors import (
    ArgumentError,
    BundleError,
    DataError,
    MethodError,
    MissingError,
    ModelError,
    NemError,
    TrainError,
    WriteError,
)

__all__ = [
    "ArgumentError",
    "Bundle",
    "BundleError",
    "DataError",
    "Manifest",
    "MethodError",
    "MissingError",
    "ModelError",
    "NemError",
    "TrainError",
    "WriteError",
    "list_bundles",
    "open_bundle",
]

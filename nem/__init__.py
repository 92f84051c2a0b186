"""The method of nem-stream: neural explanation masks, tensors in and tensors out.

Only what needs no torch is exported here; `nem.bundle_io`, `nem.model` and `nem.train` are
imported by those who need them.
"""

from nem.bundle import Bundle, Manifest, list_bundles, open_bundle
from nem.errors import BundleError, DataError, ModelError, NemError, TrainError, WriteError

__all__ = [
    "Bundle",
    "BundleError",
    "DataError",
    "Manifest",
    "ModelError",
    "NemError",
    "TrainError",
    "WriteError",
    "list_bundles",
    "open_bundle",
]

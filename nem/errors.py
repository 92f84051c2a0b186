"""Errors of the method package. Messages are one line: asked, found, allowed, what to do.

NemError
├── BundleError   (also ValueError)    a bundle that can't be found, trusted or written
├── ModelError    (also ValueError)    a backbone or decoder that can't be built as asked
├── DataError     (also ValueError)    training data that can't be used
└── TrainError    (also RuntimeError)  a training that can't start or go on
"""

from __future__ import annotations


class NemError(Exception):
    """Base of all errors raised by `nem`."""


class BundleError(NemError, ValueError):
    """A bundle is missing, damaged, of another version, or can't be written."""


class ModelError(NemError, ValueError):
    """A backbone or decoder can't be built as asked."""


class DataError(NemError, ValueError):
    """Training data is missing or can't be used."""


class TrainError(NemError, RuntimeError):
    """A training can't start or can't go on."""

"""Errors of the method package. Messages are one line: asked, found, allowed, what to do.

NemError
├── BundleError   (also ValueError)    a bundle that can't be found, trusted or written
├── ModelError    (also ValueError)    a backbone or decoder that can't be built as asked
├── ArgumentError (also ValueError)    a function given what it can't take
├── MethodError   (also ValueError)    a method that is none, or can't explain what is asked
├── DataError     (also ValueError)    training data that can't be used
├── MissingError  (also ImportError)   a library of an extra that isn't installed
├── TrainError    (also RuntimeError)  a training that can't start or go on
└── WriteError                         a checkpoint or a bundle that the disk doesn't take
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The beginning of an error's text, in one line; of a long one its first whole sentences."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if len(line) <= 160:
        return line
    sentences, end, _ = line[:157].rpartition(". ")
    return sentences if end else f"{line[:157]}..."


def reason_of(error: BaseException) -> str:
    """Why something failed, in few words: of an error of the system no number and no path."""
    return getattr(error, "strerror", None) or first_line(error)


class NemError(Exception):
    """Base of all errors raised by `nem`."""


class BundleError(NemError, ValueError):
    """A bundle is missing, damaged, of another version, or made of what it can't hold."""


class ModelError(NemError, ValueError):
    """A backbone or decoder can't be built as asked."""


class ArgumentError(NemError, ValueError):
    """A function is given a value or shape it can't take."""


class MethodError(NemError, ValueError):
    """A method of explaining is unknown, or can't explain what is asked of it."""


class DataError(NemError, ValueError):
    """Training data is missing or can't be used."""


class MissingError(NemError, ImportError):
    """A method needs a library that an extra brings and that isn't installed."""


class TrainError(NemError, RuntimeError):
    """A training can't start or can't go on."""


class WriteError(NemError):
    """The disk doesn't take a checkpoint or a bundle."""

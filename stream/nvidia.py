"""Why NVIDIA's video engines can't be used here: asked of the driver after a try has failed.

FFmpeg says only "Operation not permitted" where a library is missing. What is asked here is what
it loads itself: the driver, and beside it the libraries of the decoder and of the encoder, which a
container gets only on request.
"""

from __future__ import annotations

import ctypes
import sys

from engines.gpus import LIBRARY as DRIVER

_WINDOWS = sys.platform == "win32"
DECODER = "nvcuvid.dll" if _WINDOWS else "libnvcuvid.so.1"
ENCODER = "nvEncodeAPI64.dll" if _WINDOWS else "libnvidia-encode.so.1"


def driver_trouble() -> str | None:
    """Why no NVIDIA GPU answers, with the cure; None if one does. Makes no context on it."""
    driver = _load(DRIVER)
    if driver is None:
        return (
            f"no NVIDIA driver here ({DRIVER} is missing); install it, in a container pass "
            "--gpus all"
        )
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        return f"the NVIDIA driver reaches no GPU (CUDA error {status}); does nvidia-smi list one?"
    if not count.value:
        return "the NVIDIA driver shows no GPU; look at CUDA_VISIBLE_DEVICES"
    return None


def decoder_trouble() -> str | None:
    """Why nothing can be decoded on a GPU; None if driver and library are there."""
    return driver_trouble() or _library_trouble("decoder", DECODER)


def encoder_trouble() -> str | None:
    """Why nothing can be encoded on a GPU; None if driver and library are there."""
    return driver_trouble() or _library_trouble("encoder", ENCODER)


def _library_trouble(what: str, library: str) -> str | None:
    if _load(library) is not None:
        return None
    return (
        f"the driver's video {what} is missing ({library}); in a container set "
        "NVIDIA_DRIVER_CAPABILITIES=all"
    )


def _load(library: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(library)
    except OSError:
        return None

"""What one thread of a process does at a time: compiling a model, opening an engine on a GPU.

Torch traces and compiles by settings of the whole process: two builds at once fail both. And
whatever waits for a whole GPU breaks a capture of a CUDA graph there, on any thread and whatever
the capture's mode. Compilers wait so between the kernels that they time, as does torch before it
captures, and opening an engine beside a capture did so on an H200. Closing may, too.
"""

from __future__ import annotations

import threading

alone = threading.RLock()
"""Held meanwhile."""

"""What one thread of a process does at a time: compiling a model, capturing a CUDA graph.

Torch traces and compiles by settings of the whole process: two builds at once fail both. And
whatever waits for a whole GPU breaks a capture there, on any thread and whatever the capture's
mode. Torch waits so before it captures, and compilers do between the kernels that they time.
"""

from __future__ import annotations

import threading

alone = threading.RLock()
"""Held meanwhile."""

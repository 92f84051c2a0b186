import re
import subprocess
import sys

import pytest

THREADS = """
import ctypes, threading
from stream.heap import one_heap
{call}
libc, barrier = ctypes.CDLL(None), threading.Barrier(8)
def work():
    barrier.wait()
    held = [bytearray(1000) for _ in range(1000)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc tells of its heaps")
@pytest.mark.parametrize("call", ["", "one_heap()"])
def test_threads_share_one_heap_where_it_is_asked_for(call):
    code = THREADS.format(call=call)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heaps = re.findall(r"^Arena \d+:", told.stderr, re.MULTILINE)
    if not heaps:
        pytest.skip("this C library does not tell of its heaps")
    assert (len(heaps) == 1) == bool(call)

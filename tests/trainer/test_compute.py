"""How products are computed: a process that keeps freed memory takes no pages anew."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

SECOND_TIME = """
import resource, torch
from trainer.compute import keep_freed_memory
keep_freed_memory()
faults = []
for megabytes in (64, 32):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes << 18)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*faults)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    """64 MB are 16,384 pages of 4 KB, or 32 of 2 MB where the system gives such; 32 MB of them serve again."""
    told = subprocess.run([sys.executable, "-c", SECOND_TIME], capture_output=True, text=True, check=True).stdout
    first, second = map(int, told.split())
    assert first >= 32
    assert second < 10

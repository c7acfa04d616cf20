"""What a process frees is there for its next use: the system need not hand out the same pages again."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import numpy as np
import pyarrow as pa
from pipelines.dedup.memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
def work():
    np.ones(12_000_000).sum()
    pa.array(np.arange(12_000_000)).cast(pa.float64())
for _ in range(6):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    found = subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, text=True, check=False)
    if found.returncode == 3:
        pytest.skip("this C library cannot be told to keep memory")
    assert found.returncode == 0, found.stderr
    return int(found.stdout)


def test_freed_memory_is_used_again() -> None:
    """In every few processes the heap lies where it cannot grow evenly; not in ten of them in a row."""
    given_back = page_faults("given back")
    assert any(page_faults("kept") * 10 < given_back for _ in range(10))

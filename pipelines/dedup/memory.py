"""Memory that a process frees stays with it for its next use, instead of going back to the system page by page.

A page that comes anew must be cleared and mapped, which on a virtual machine costs 2.5 us a KB; a search frees and
takes hundreds of megabytes many times: a tenth of its cost where a third of the documents are near-duplicates.
Trade-off: a worker stays as large as its largest task made it, until its job ends.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import pyarrow as pa

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER, _NONE = -1, 0


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """From now on in this process, for numpy and Arrow; whether it could be set: glibc has mallopt, others have not."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    if not (mallopt(_M_MMAP_MAX, _NONE) and mallopt(_M_TRIM_THRESHOLD, _NEVER)):
        return False
    pa.set_memory_pool(pa.system_memory_pool())
    return True

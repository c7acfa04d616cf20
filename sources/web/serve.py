"""The process in which pages are extracted: JSON head and page on stdin, a line of JSON on stdout, until stdin ends.

Started by `sources.sandbox` as `python -m sources.web.serve CPU_SECONDS MEMORY_BYTES MODE`. A start costs 0.6 s of CPU
time: numba would import scipy and cffi (0.4 s more) to see whether they are there, so they are said not to be.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any, cast

import orjson

if TYPE_CHECKING:
    from sources.reading import Extraction

_UNNEEDED = ("scipy", "cffi")


def serve(cpu_seconds: float, memory_bytes: int, mode: Extraction) -> None:
    """Answer until stdin ends. The kernels load, or are compiled, before any page's time runs."""
    _answer(b"<p>Text.</p>", {"charset": None, "url": None, "mode": mode})
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pages = sys.stdin.buffer
    while head := pages.readline():
        request = orjson.loads(head)
        data = pages.read(request["bytes"])
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        reply = _answer(data, request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(reply + b"\n")
        replies.flush()


def _answer(data: bytes, request: dict[str, Any]) -> bytes:
    from sources.web.html import extract_page

    try:
        page = extract_page(data, announced_charset=request["charset"], url=request["url"], mode=request["mode"])
        return orjson.dumps(page)
    except MemoryError:
        return orjson.dumps({"failure": "the page needs more memory than it is given"})
    except Exception as error:  # whatever a foreign parser raises over one page is that page's failure
        return orjson.dumps({"failure": f"{type(error).__name__}: {error}"[:400]})


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(_UNNEEDED))  # type: ignore[arg-type]  # None: an import of it fails at once
    serve(float(sys.argv[1]), int(sys.argv[2]), cast("Extraction", sys.argv[3]))

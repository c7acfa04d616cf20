"""Pages to text in a process of its own, so that a hostile page costs itself and nothing else.

Before each page the process arms a kernel timer of CPU time whose signal kills it, and it lives under an address space
limit. That holds inside C code too, where neither Python signals nor injected exceptions arrive, and needs no main
thread on our side, so it works in Ray workers. CPU time, not wall time: a busy machine does not change what fails.

Price: 0.1 ms a page for the pipe, one start of the process (0.6 s, 120 MB), and again after each page that kills it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from sources.reading import Extraction, ReadConfig
from sources.web.html import Page

_ROOT = Path(__file__).resolve().parent.parent
_SERVE = "from sources.sandbox import serve; serve()"


class ExtractionFailed(Exception):
    """A page could not be extracted; `reason` is `page_timeout`, `page_too_complex` or `page_crashed`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class PageExtractor:
    """A context in which `extract` works; the process starts with the first page."""

    def __init__(self, *, cpu_seconds: float, memory_bytes: int, mode: Extraction = "best") -> None:
        self._mode = mode
        self._cpu_seconds = cpu_seconds
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def as_configured(cls, config: ReadConfig) -> Self:
        """The extractor that a reader of web pages is asked for."""
        return cls(cpu_seconds=config.page_cpu_seconds, memory_bytes=config.page_memory_bytes, mode=config.extraction)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def extract(self, data: bytes, *, announced_charset: str | None, url: str | None) -> Page:
        """The page's text and facts. Raises ExtractionFailed, and is ready for the next page then."""
        process = self._process or self._start()
        assert process.stdin and process.stdout
        head = {"bytes": len(data), "charset": announced_charset, "url": url, "mode": self._mode}
        try:
            process.stdin.write(json.dumps(head).encode() + b"\n" + data)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer.endswith(b"\n"):
            raise self._explain_death(process)
        reply = json.loads(answer)
        if reply.get("failure"):
            raise ExtractionFailed("page_too_complex", reply["failure"])
        return Page(**reply)

    def _start(self) -> subprocess.Popen[bytes]:
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        limits = [str(self._cpu_seconds), str(self._memory_bytes), self._mode]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        return self._process

    def _explain_death(self, process: subprocess.Popen[bytes]) -> ExtractionFailed:
        self._process = None
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
        if process.returncode == -signal.SIGPROF:
            return ExtractionFailed("page_timeout", f"not extracted within {self._cpu_seconds:g} s of CPU time")
        return ExtractionFailed("page_crashed", f"the extraction process ended with {process.returncode}")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with contextlib.suppress(BrokenPipeError):
            process.communicate()


def serve() -> None:
    """The process: JSON head and page on stdin, one line of JSON on stdout, until stdin ends."""
    from sources.web.html import extract_page

    mode = cast(Extraction, sys.argv[3])
    extract_page(b"<p>The kernels load, or are compiled, before any page's time runs.</p>", mode=mode)
    cpu_seconds, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pages = sys.stdin.buffer
    while head := pages.readline():
        request = json.loads(head)
        data = pages.read(request["bytes"])
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        reply = _answer(data, request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(replies, reply)


def _answer(data: bytes, request: dict[str, str | None]) -> dict[str, str | None]:
    from sources.web.html import extract_page

    try:
        page = extract_page(
            data, announced_charset=request["charset"], url=request["url"], mode=cast(Extraction, request["mode"])
        )
    except MemoryError:
        return {"failure": "the page needs more memory than it is given"}
    except Exception as error:  # whatever a foreign parser raises over one page is that page's failure
        return {"failure": f"{type(error).__name__}: {error}"[:400]}
    return asdict(page)


def _send(replies: BinaryIO, reply: dict[str, str | None]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()

"""Pages to text in a process of its own, so that a hostile page costs itself and nothing else.

Before each page the process arms a kernel timer of CPU time whose signal kills it, and it lives under an address space
limit. That holds inside C code too, where neither Python signals nor injected exceptions arrive, and needs no main
thread on our side, so it works in Ray workers. CPU time, not wall time: a busy machine does not change what fails.

Price: 0.1 ms a page for the pipe, one start of the process (0.5 s, 120 MB), and again after each page that kills it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from sources.reading import Extraction, ReadConfig
from sources.web.page import Page

_ROOT = Path(__file__).resolve().parent.parent
_SERVE = "sources.web.serve"


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
            process.stdin.write(orjson.dumps(head) + b"\n")
            process.stdin.write(data)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer.endswith(b"\n"):
            raise self._explain_death(process)
        reply = orjson.loads(answer)
        if reply.get("failure"):
            raise ExtractionFailed("page_too_complex", reply["failure"])
        return Page(**reply)

    def _start(self) -> subprocess.Popen[bytes]:
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        limits = [str(self._cpu_seconds), str(self._memory_bytes), self._mode]
        self._process = subprocess.Popen(
            [sys.executable, "-m", _SERVE, *limits],
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

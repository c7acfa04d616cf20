"""An input read in a process of its own, and again behind each record that kills it.

Invariant: a record that takes too long or crashes its reader, in compiled code too, costs itself: it is a failure with
its place and reason. Where the process dies between two records, what follows is one failure.

Price: a start of the process (1 s) and the input from its beginning for each such record: this is for inputs over
which a worker has died already.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, MutableSequence
from multiprocessing.connection import Connection
from typing import cast

from sources.ingest import Batch, IngestConfig, Reader, ingest, read
from sources.reading import RawInput
from sources.watch import BEGUN, READ, RECORD_CPU_SECONDS, Watch
from storage.errors import CurationError

MOST_GIVEN_UP = 100
"""Records of one input; behind them the rest is given up."""
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


def ingest_apart(
    raw: RawInput, config: IngestConfig, *, reader: Reader = read, cpu_seconds: float = RECORD_CPU_SECONDS
) -> Iterator[Batch]:
    """What `ingest` gives. Raises ChildProcessError where others kill the process, as for want of memory."""
    watch, ordinal = Watch(cpu_seconds=cpu_seconds, progress=_shared()), 0
    while True:
        with _Process(raw, config, reader, watch) as process:
            for batch in process.batches():
                if batch.ordinal == ordinal:
                    yield batch
                    ordinal += 1
            if process.finished:
                return
            watch = _give_up(watch, process.reason_of_death())


def _shared() -> MutableSequence[int]:
    """Numbers that outlive the process that writes them."""
    return cast("MutableSequence[int]", multiprocessing.get_context("spawn").Array("q", 2, lock=False))


def _give_up(watch: Watch, why: tuple[str, str]) -> Watch:
    """What the next process is to know."""
    number = watch.progress[READ]
    given_up = {**watch.given_up, number: why}
    again = not watch.progress[BEGUN] or number in watch.given_up or len(given_up) > MOST_GIVEN_UP
    return Watch(
        cpu_seconds=watch.cpu_seconds, progress=_shared(), given_up=given_up, stop_at=number if again else watch.stop_at
    )


class _Process:
    """A context in which one process reads the input."""

    def __init__(self, raw: RawInput, config: IngestConfig, reader: Reader, watch: Watch) -> None:
        context = multiprocessing.get_context("spawn")
        self._raw, self._seconds, self.finished = raw, watch.cpu_seconds, False
        self._answers, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(theirs, raw, config, reader, watch), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._process.kill()
        self._process.join()

    def batches(self) -> Iterator[Batch]:
        """Until the input or the process ends. Raises what the reader raised."""
        while not self.finished:
            try:
                answer: Batch | Exception | None = self._answers.recv()
            except (EOFError, OSError):
                return
            if isinstance(answer, Exception):
                raise answer
            if answer is None:
                self.finished = True
            else:
                yield answer

    def reason_of_death(self) -> tuple[str, str]:
        """Reason and detail of the failure. Raises ChildProcessError where the record is not to blame."""
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGPROF:
            return "time_limit", f"not read within {self._seconds:g} s of CPU time"
        if -code in _CRASHES:
            return "reader_crashed", f"the process that read it ended with {signal.Signals(-code).name}"
        raise ChildProcessError(f"the process that reads `{self._raw.name}` ended with {code}; -9 is want of memory")


def _serve(answers: Connection, raw: RawInput, config: IngestConfig, reader: Reader, watch: Watch) -> None:
    """The process: batches, then None; or what was raised."""
    try:
        for batch in ingest(raw, config, reader=reader, watch=watch):
            answers.send(batch)
        answers.send(None)
    except CurationError as error:
        answers.send(error)

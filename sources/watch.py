"""The CPU time that one record may take, enforced by the kernel on the process that reads it, in whatever code it is.

A timer runs while a reader looks for its next record. Where it ends, the process ends: no signal of Python's arrives
inside C code. So a watched reader works in a process that may die, and `sources.apart` reads on behind what killed it.
The time begins anew with every 16 MB of input that hold no record, and stands still while kernels are compiled.

Price: 1 µs a record. CPU time, not wall time: a busy machine does not change what fails.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, MutableSequence
from dataclasses import dataclass, field
from itertools import islice

from sources.reading import STAGE, Place, RawInput, Reading
from storage.schema import Failure

RECORD_CPU_SECONDS = 30.0
"""The largest record that is allowed takes one; a page of HTML has a limit of its own."""
_MOVED_BYTES = 16 << 20
READ, BEGUN = 0, 1
"""Places of `progress`."""


@dataclass
class Watch:
    """What is known of a reader that may die: `progress` is how many records it has read, and whether it works on one.

    A record whose number is in `given_up` is not read again; what stands there is said of it. Behind `stop_at` records
    nothing is read, since the reader dies before it begins another one.
    """

    cpu_seconds: float = RECORD_CPU_SECONDS
    progress: MutableSequence[int] = field(default_factory=lambda: [0, 0])
    given_up: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    stop_at: int | None = None
    _moved_bytes: int = 0
    _compiling: int = 0

    def readings(self, readings: Iterable[Reading], raw: RawInput) -> Iterator[Reading]:
        """The reader's records, each within its time."""
        yield from self._timed(iter(readings) if self.stop_at is None else islice(readings, self.stop_at))
        if self.stop_at is not None:
            reason, detail = self.given_up[self.stop_at]
            what = f"nothing behind record {self.stop_at} can be read: {detail}"
            yield Failure(STAGE, raw.source, raw.name, None, None, reason, what)

    def _timed(self, readings: Iterator[Reading]) -> Iterator[Reading]:
        global _current
        while True:
            _current, self._moved_bytes = self, 0
            self._arm()
            try:
                reading = next(readings, None)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                _current = None
            if reading is None:
                return
            self.progress[BEGUN] = 0
            self.progress[READ] += 1
            yield reading

    def _arm(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, self.cpu_seconds)

    def begin(self, place: Place) -> Failure | None:
        self.progress[BEGUN] = 1
        found = self.given_up.get(self.progress[READ])
        return place.failure(*found) if found else None

    def move(self, size: int) -> None:
        self._moved_bytes += size
        if self._moved_bytes >= _MOVED_BYTES:
            self._moved_bytes = 0
            self._arm()

    def compile(self, change: int) -> None:
        self._compiling += change
        if self._compiling:
            signal.setitimer(signal.ITIMER_PROF, 0)
        else:
            self._arm()


_current: Watch | None = None
"""A process has one such timer, and reads one input at a time."""


def begins(place: Place) -> Failure | None:
    """Every reader calls this before it works on a record, and passes over one that has killed its process."""
    return _current.begin(place) if _current else None


def moved(size: int) -> None:
    """So many bytes of the input are read."""
    if _current:
        _current.move(size)


def compiling(change: int) -> None:
    """A kernel's compilation begins (1), or has ended (-1)."""
    if _current:
        _current.compile(change)

"""The trainer as a process of its own, as every job that starts one meets it: how it ends, and what it says then."""

from __future__ import annotations

import ctypes
import signal

from storage.errors import DISK_FULL, CurationError, DiskFull

USER_ERROR = 2


def user_error(text: str) -> CurationError:
    """The trainer's three lines as an error again."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    start = max((i for i, line in enumerate(lines) if line.startswith("error: ")), default=max(len(lines) - 1, 0))
    if not lines:
        return CurationError("the trainer refused its input")
    said = [lines[start].removeprefix("error: ")]
    found: dict[str, str] = {}
    for line in lines[start + 1 :]:
        key, _, value = line.strip().partition(": ")
        if key in ("at", "hint") and value:
            found[key] = value
        elif not found:
            said.append(line)
    kind = DiskFull if said[0] == DISK_FULL else CurationError
    return kind("\n".join(said), at=found.get("at"), hint=found.get("hint"))


def die_with_parent() -> None:
    """The trainer ends when the worker that watches it is killed (Linux)."""
    _when_parent_ends(signal.SIGKILL)


def end_with_parent() -> None:
    """The same for one that ends processes of its own first."""
    _when_parent_ends(signal.SIGTERM)


def _when_parent_ends(number: signal.Signals) -> None:
    try:
        ctypes.CDLL(None).prctl(1, number)
    except (OSError, AttributeError):
        pass

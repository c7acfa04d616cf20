"""torchrun in our words: `python -m trainer.parallel.launch TORCHRUN-OPTIONS -m trainer train …`.

What the user can mend is said once and ends all processes with exit code 2; torchrun itself would end with 1, below
thirty lines about its children. A process that was lost is named with what ended it (exit code 1).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run

USER_ERROR = 2


def main(arguments: Sequence[str]) -> int:
    """Start the processes and wait for them; returns the exit code."""
    logging.disable(logging.ERROR)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun would, with a warning of five lines
    try:
        run(parse_args(list(arguments)))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == USER_ERROR:
            return USER_ERROR
        print(f"error: process {rank} {_end_of(failure)}; start again: the run goes on", file=sys.stderr)
        return 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _end_of(failure: ProcessFailure) -> str:
    return f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with code {failure.exitcode}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Several processes that train together, forked from the test's own, so that nothing is imported again."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

LONGEST_SECONDS = 25
"""A process that hangs ends then, and tells where it was."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_processes(
    size: int, work: Callable[[int], object], folder: Path, longest_seconds: int = LONGEST_SECONDS
) -> None:
    """`work(rank)` in `size` processes as torchrun would start them; AssertionError with the traces of those that fail.

    What a process tells goes to `folder/RANK.log`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    children = {start_process(rank, size, port, work, folder, longest_seconds): rank for rank in range(size)}
    failed = []
    while children:
        pid, status = os.wait()
        rank = children.pop(pid, None)
        if rank is not None and status:
            failed.append(f"process {rank}: {(folder / f'{rank}.log').read_text()[-4000:]}")
    assert not failed, "\n".join(failed)


def start_process(
    rank: int,
    size: int,
    port: int,
    work: Callable[[int], object],
    folder: Path,
    longest_seconds: int = LONGEST_SECONDS,
) -> int:
    """The process id of a child that does `work`."""
    child = os.fork()
    if child:
        return child
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    code = 1
    with open(folder / f"{rank}.log", "w", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            faulthandler.dump_traceback_later(longest_seconds, exit=True, file=log)
            torch.set_num_threads(1)
            work(rank)
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            traceback.print_exc(file=log)
        os._exit(code)

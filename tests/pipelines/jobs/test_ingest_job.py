"""An input over which a worker died is read in a process of its own, to the same parts."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipelines.jobs import ingest as job
from sources.ingest import IngestConfig
from tests.sources.captures import write


def _arguments(folder: Path, root: str) -> dict[str, Any]:
    raw = write(folder, "x.jsonl", b'{"text": "A mill."}\n{"text": "A weir."}\n', "jsonl")
    return {"root": str(folder / root), "raw": asdict(raw), "config": asdict(IngestConfig())}


def _die_over(arguments: dict[str, Any]) -> None:
    def dies(*_: object, **__: object) -> Iterator[None]:
        os.kill(os.getpid(), signal.SIGPROF)
        yield None

    job.ingest = dies  # type: ignore[assignment]
    job.ingest_input(arguments)


def test_a_worker_s_death_is_noticed_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = job.ingest_input(_arguments(tmp_path, "whole"))
    arguments = _arguments(tmp_path, "died")
    process = multiprocessing.get_context("spawn").Process(target=_die_over, args=(arguments,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGPROF
    monkeypatch.setattr(job, "ingest", lambda *_, **__: pytest.fail("read in the worker again"))
    assert job.ingest_input(arguments)["receipt"] == whole["receipt"]
    assert not list(tmp_path.rglob("*.begun"))

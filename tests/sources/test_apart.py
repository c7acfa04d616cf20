"""Records that hang or crash their reader inside C code: each costs itself, and all others are read."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from numba.core import event

import sources.compiled
from sources.apart import ingest_apart
from sources.ingest import IngestConfig, ingest, read
from sources.reading import Place, RawInput, ReadConfig, Reading
from sources.watch import Watch, begins, moved
from tests.sources.captures import write
from tests.sources.hanging import read_hanging

SECONDS = 0.3


def lines(folder: Path, texts: Sequence[str]) -> RawInput:
    return write(folder, "x.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts).encode(), "jsonl")


def apart(raw: RawInput, **config: int) -> tuple[list[str], list[tuple[int | None, str]]]:
    """Texts, and offset and reason of each failure."""
    batches = list(ingest_apart(raw, IngestConfig(**config), reader=read_hanging, cpu_seconds=SECONDS))  # type: ignore[arg-type]
    assert [batch.ordinal for batch in batches] == list(range(len(batches)))
    texts = [text for batch in batches for text in batch.documents["text"].to_pylist()]
    failures = [row for batch in batches for row in batch.failures.to_pylist()]
    return texts, [(row["offset"], row["reason"]) for row in failures]


@pytest.mark.slow
def test_what_hangs_or_crashes_costs_its_record(tmp_path: Path) -> None:
    texts = ["a", "b", "hang in a pattern", "c", "hang in a kernel", "crash", "d"]
    offsets = [sum(len(json.dumps({"text": text})) + 1 for text in texts[:n]) for n in range(len(texts))]
    wanted = [(offsets[2], "time_limit"), (offsets[4], "time_limit"), (offsets[5], "reader_crashed")]
    assert apart(lines(tmp_path, texts)) == (["a", "b", "c", "d"], wanted)
    assert apart(lines(tmp_path, texts), part_bytes=1) == (["a", "b", "c", "d"], wanted)


def test_a_hang_between_records_costs_what_follows(tmp_path: Path) -> None:
    assert apart(lines(tmp_path, ["a", "hang behind this", "b"])) == (["a", "hang behind this"], [(None, "time_limit")])


@pytest.mark.slow
def test_a_process_that_others_kill_is_no_record_s_fault(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match="ended with -9"):
        apart(lines(tmp_path, ["a", "be killed"]))


def _ingest_watched(raw: RawInput) -> None:
    list(ingest(raw, IngestConfig(), reader=read_hanging, watch=Watch(cpu_seconds=SECONDS)))


def test_a_watched_reader_ends_its_process(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_ingest_watched, args=(lines(tmp_path, ["a", "hang in a pattern"]),)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGPROF


def test_time_stands_still_while_kernels_are_compiled(tmp_path: Path) -> None:
    seen = []

    class Seen(event.Listener):  # type: ignore[misc]
        def on_start(self, event: object) -> None:
            seen.append(signal.getitimer(signal.ITIMER_PROF)[0])

        on_end = on_start

    def reader(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
        sources.compiled.part(lambda n: n + 1)(1)
        seen.append(signal.getitimer(signal.ITIMER_PROF)[0])
        yield from read(raw, config)

    with event.install_listener("numba:compile", Seen()):
        list(ingest(lines(tmp_path, ["a"]), IngestConfig(), reader=reader, watch=Watch()))
    assert len(seen) >= 3 and not seen[0] and seen[-1]


def test_time_begins_anew_with_a_record_and_with_what_is_passed_over() -> None:
    place = Place("s", "f", 3)
    watch = Watch(given_up={1: ("time_limit", "x")})

    def reader():  # type: ignore[no-untyped-def]
        for _ in range(3):
            before = signal.getitimer(signal.ITIMER_PROF)[0]
            while signal.getitimer(signal.ITIMER_PROF)[0] == before:
                pass
            moved(17 << 20)
            assert signal.getitimer(signal.ITIMER_PROF)[0] >= before
            yield begins(place) or place.document(b"x" * 16, "text")

    raw = RawInput(source="s", kind="text", path="f", name="f", size=1)
    found = [getattr(one, "reason", "document") for one in watch.readings(reader(), raw)]
    assert found == ["document", "time_limit", "document"]
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0 and begins(place) is None

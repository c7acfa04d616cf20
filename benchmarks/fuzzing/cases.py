"""Damaged files through the real readers, in a process that may die: what became of each.

Invariant: every case ends with an outcome. That a case crashes the process (a segmentation fault in compiled code),
uses more than CPU_SECONDS or answers nothing for WALL_SECONDS is one too, and the next case has a new process.
"""

from __future__ import annotations

import json
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import cast

from benchmarks.fuzzing.formats import Format, all_formats, captures_archive
from benchmarks.fuzzing.mutations import Case, damaged
from sources.ingest import read
from sources.reading import Kind, RawInput, ReadConfig
from sources.web.html import extract_page
from sources.wikitext import PlainText, Site
from storage.errors import CurationError
from storage.schema import Document, Failure

CPU_SECONDS = 20.0
WALL_SECONDS = 120.0
START_SECONDS = 900.0
"""For a process to compile its kernels, once a machine."""
MEMORY_BYTES = 12 << 30
"""Address space, of which compiled code and Arrow reserve some without using it."""
CONFIG = ReadConfig(
    mime_types=("text/plain", "text/html"), extraction="fast", max_page_bytes=2 << 20, page_cpu_seconds=5.0
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case. `fault` is empty where all went well; `peak_bytes` is resident memory beyond before."""

    name: str
    seed: int
    documents: int = 0
    failures: int = 0
    skipped: int = 0
    refused: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    fault: str = ""
    how: str = ""


def outcomes(cases: Sequence[tuple[str, int]], environment: Mapping[str, str] | None = None) -> Iterator[Outcome]:
    """The outcome of every case, given as the name of a format and a seed, in order."""
    left = list(cases)
    while left:
        done = 0
        for outcome in _serve(left, environment):
            done += 1
            yield outcome
        left = left[done:]


def _serve(cases: Sequence[tuple[str, int]], environment: Mapping[str, str] | None) -> Iterator[Outcome]:
    """Outcomes from one process, the last one that of its death if it dies."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fuzzing.cases"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env=dict(environment) if environment else None,
    )  # fmt: skip
    assert process.stdin and process.stdout
    if select.select([process.stdout], [], [], START_SECONDS)[0]:
        process.stdout.readline()
    for name, seed in cases:
        answer = b""
        try:
            process.stdin.write(json.dumps([name, seed]).encode() + b"\n")
            process.stdin.flush()
            if select.select([process.stdout], [], [], WALL_SECONDS)[0]:
                answer = process.stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            process.kill()
            yield Outcome(name=name, seed=seed, fault=_death(process.wait()))
            return
        yield Outcome(**json.loads(answer))
    process.stdin.close()
    process.wait()


def _death(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"hang: more than {CPU_SECONDS:g} s of CPU time"
    return (
        f"hang: no answer in {WALL_SECONDS:g} s" if code == -signal.SIGKILL else f"crash: the process ended with {code}"
    )


def serve() -> None:
    """The process: a case a line on stdin, its outcome on stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.warc.gz").write_bytes(captures_archive())
        for name in _formats():
            _whole(name, folder)
        print("ready", flush=True)
        for line in sys.stdin.buffer:
            name, seed = json.loads(line)
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            found = run_case(_formats()[name], damaged(_formats()[name], seed), seed, Path(folder))
            signal.setitimer(signal.ITIMER_PROF, 0)
            sys.stdout.write(json.dumps(asdict(found)) + "\n")
            sys.stdout.flush()


@cache
def _formats() -> dict[str, Format]:
    return {form.name: form for form in all_formats()}


def run_case(form: Format, case: Case, seed: int, folder: Path) -> Outcome:
    """Read the damaged file, and see that it was taken as it should be."""
    begun, held = time.process_time(), _memory("VmRSS")
    _forget_peak()
    counts, fault = Counter[str](), ""
    try:
        texts = _read(form, case.data, folder, counts)
        fault = _lost(form, case, texts)
    except CurationError:
        counts["refused"] += 1
    except BaseException as error:  # whatever a reader lets out is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"raised {type(error).__name__}: {str(error)[:150]} at {Path(place.filename).name}:{place.lineno}"
    return Outcome(
        name=form.name, seed=seed, documents=counts["documents"], failures=counts["failures"],
        skipped=counts["skipped"], refused=counts["refused"], seconds=time.process_time() - begun,
        peak_bytes=max(0, _memory("VmHWM") - held), fault=fault, how=case.how if fault else "",
    )  # fmt: skip


def _read(form: Format, data: bytes, folder: Path, counts: Counter[str]) -> list[str]:
    """The texts of the file's documents; what the others were is counted."""
    if form.kind == "html":
        counts["documents"] += 1
        return [extract_page(data, mode="best").text]
    if form.kind == "wikitext":
        counts["documents"] += 1
        return [_wikitext().read(data)]
    path = folder / "case"
    path.write_bytes(data)
    raw = RawInput(
        source="s",
        kind=cast(Kind, form.kind),
        path=str(path),
        name="case",
        size=len(data),
        base=str(folder),
        separator=form.separator,
    )
    texts = []
    for reading in read(raw, CONFIG):
        if isinstance(reading, Document):
            texts.append(reading.text)
        counts[
            "documents" if isinstance(reading, Document) else "failures" if isinstance(reading, Failure) else "skipped"
        ] += 1
    return texts


@cache
def _wikitext() -> PlainText:
    return PlainText(Site())


def _lost(form: Format, case: Case, texts: Sequence[str]) -> str:
    """Which undamaged pieces are not among the documents, in words."""
    if not form.apart or not form.texts:
        return ""
    all_words = "\n".join(texts)
    lost = [n for n, text in enumerate(form.texts) if n not in case.touched and text not in all_words]
    return f"undamaged pieces {lost} are lost" if lost else ""


def _whole(name: str, folder: str) -> None:
    """A format as it is, before any damage: kernels load, and every document must be there."""
    form = _formats()[name]
    data = form.build(form.pieces)
    found = run_case(form, Case(data=data, touched=frozenset(), how="nothing"), -1, Path(folder))
    assert not found.fault and not found.failures, (name, found)


def _memory(field: str) -> int:
    """VmRSS or VmHWM, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def _forget_peak() -> None:
    """VmHWM begins anew, where the kernel lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


if __name__ == "__main__":
    serve()

"""Hostile programs: each ends within its limits, says why, and has changed nothing outside its folder."""

from __future__ import annotations

import gzip
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from storage.errors import InputError, ResourceError
from trainer.evaluation.programs import Problems, cut, estimate_pass_at, measure_passes, read_problems
from trainer.evaluation.sandbox import Outcome, SandboxLimits, require_guards, run_program, run_programs

LIMITS = SandboxLimits(seconds=0.8, memory_bytes=512 << 20, file_bytes=1 << 20)
PATIENT = SandboxLimits(memory_bytes=512 << 20, file_bytes=1 << 20)
"""For programs that do end, on a machine however busy."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="guards are Linux's")


@pytest.fixture(scope="module")
def guarded() -> None:
    """Skips where the kernel has no Landlock or no seccomp: there nothing is run unless the user insists."""
    guards = require_guards(accept_none=True)
    if not (guards.files and guards.calls):
        pytest.skip(f"not all guards can be had here: {guards}")


def test_nothing_runs_unguarded_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = '{"guards": {"files": false, "calls": true}, "passed": true, "reason": ""}\n'
    monkeypatch.setattr("trainer.evaluation.sandbox._run_jail", lambda *_: bare)
    with pytest.raises(ResourceError, match="Landlock cannot be had"):
        require_guards()
    assert not require_guards(accept_none=True).files


@pytest.mark.usefixtures("guarded")
def test_honest_programs_pass_and_wrong_ones_say_why() -> None:
    honest = "import math, re, json, collections, itertools, random, threading\nassert math.gcd(12, 18) == 6\n"
    threads = "import threading\nt = threading.Thread(target=print)\nt.start(); t.join()\n"
    files = "open('a.txt', 'w').write('x')\nassert open('a.txt').read() == 'x'\nimport os; os.remove('a.txt')\n"
    outcomes = run_programs([honest, threads, files, "assert 1 == 2, 'no'", "def f(:", "raise SystemExit(0)"], PATIENT)
    assert [outcome.passed for outcome in outcomes] == [True, True, True, False, False, False]
    assert outcomes[3].reason == "AssertionError: no" and outcomes[4].reason.startswith("SyntaxError")
    assert outcomes[5].reason == "SystemExit: 0"


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("while True: pass", "not done after 0.8 s"),
        ("import time; time.sleep(100)", "not done after 0.8 s"),
        ("x = bytearray(1 << 40)", "MemoryError"),
        ("x = []\nwhile True: x.append(bytearray(1 << 24))", "MemoryError"),
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; os.system('touch /tmp/x') == 0 or print(1/0)", "ZeroDivisionError"),
        ("import multiprocessing as m; m.Process(target=print).start()", "PermissionError"),
        ("import socket; socket.socket()", "PermissionError"),
        ("import urllib.request as u; u.urlopen('http://127.0.0.1:9')", "URLError"),
        ("import os; os._exit(0)", "it ended the interpreter"),
        ("import os, signal; os.kill(os.getppid(), signal.SIGKILL)", "PermissionError"),
        ("import os, signal; os.kill(-1, signal.SIGKILL)", "PermissionError"),
        ("import os, signal; os.abort()", "killed by SIG"),
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
        ("import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()", ""),
        ("import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))", "ValueError"),
        ("open('big', 'wb').write(bytes(1 << 24))", "killed by SIGXFSZ|OSError"),
        ("fs = [open(f'f{i}', 'w') for i in range(1000)]", "OSError"),
        ("import os; os.chmod('/tmp', 0o777)", "PermissionError"),
        ("import os; os.listdir('/home')", "PermissionError"),
        ("open('/etc/passwd').read()", "PermissionError"),
        ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()", ""),
    ],
)
def test_hostile_programs_end(source: str, reason: str) -> None:
    start = time.monotonic()
    outcome = run_program(source, LIMITS if reason in ("", "not done after 0.8 s") else PATIENT)
    assert not outcome.passed and any(part in outcome.reason for part in reason.split("|")), outcome
    assert time.monotonic() - start < 12


@pytest.mark.usefixtures("guarded")
def test_printing_a_gigabyte_is_read_by_nobody() -> None:
    outcome = run_program("import sys\nfor _ in range(64): sys.stdout.write('x' * (1 << 24))\n", LIMITS)
    assert outcome.passed or outcome.reason.startswith("not done")


@pytest.mark.usefixtures("guarded")
def test_nothing_outside_is_deleted_or_written(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("here")
    source = f"""
import os, shutil
for work in (
    lambda: os.remove({str(kept)!r}), lambda: shutil.rmtree({str(tmp_path)!r}), lambda: open({str(kept)!r}, 'w'),
    lambda: os.truncate({str(kept)!r}, 0), lambda: os.rename({str(kept)!r}, 'm'), lambda: os.link({str(kept)!r}, 'l'),
    lambda: os.mkdir({str(tmp_path / "new")!r}), lambda: os.symlink('/', {str(tmp_path / "link")!r}),
    lambda: os.utime({str(kept)!r}), lambda: os.chown({str(kept)!r}, 1, 1), lambda: open({str(kept)!r}).read(),
):
    try:
        work()
    except OSError:
        continue
    raise AssertionError('allowed')
"""
    assert run_program(source, PATIENT) == Outcome(passed=True, reason="")
    assert kept.read_text() == "here" and os.listdir(tmp_path) == ["kept.txt"]


@pytest.mark.usefixtures("guarded")
def test_nobody_is_called_over_the_network() -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        source = f"import urllib.request as u\nu.urlopen('http://127.0.0.1:{server.server_port}/secret', timeout=2)"
        outcome = run_program(source, LIMITS)
        server.shutdown()
    assert not outcome.passed and not asked


@pytest.mark.usefixtures("guarded")
def test_folders_are_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_program("import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('x')", PATIENT)
    run_program("open('a', 'w').write('x')\nwhile True: pass", SandboxLimits(seconds=1))
    assert os.listdir(tmp_path) == []


def test_the_estimator_is_the_papers() -> None:
    """Over all draws of k of n texts, of which c pass: the share of draws with one that passes."""
    from itertools import combinations

    for n, c, k in [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 6), (7, 3, 4)]:
        draws = list(combinations(range(n), k))
        assert estimate_pass_at(n, c, k) == pytest.approx(sum(min(draw) < c for draw in draws) / len(draws))


def test_texts_end_where_the_function_does() -> None:
    assert cut("    return 1\n\ndef other():\n    pass") == "    return 1\n"
    assert cut("    if x:\n        return 1\n") == "    if x:\n        return 1\n"


ADD = {
    "prompt": "def add(a, b):\n",
    "entry_point": "add",
    "test": "def check(f):\n    assert f(1, 2) == 3\n    assert f(-1, 1) == 0\n",
}


def test_passes_are_counted_by_problem(tmp_path: Path) -> None:
    problems = read_problems(tmp_path / "two.jsonl", [ADD, {**ADD, "entry_point": "add"}])
    texts = ["    return a + b\n", "    return a - b\n", "    import os; os._exit(0)\n"]

    def write(prompts: Sequence[str], number: int) -> list[str]:
        return [texts[number % 3], texts[1]]

    result = measure_passes(problems, write, samples=3, ks=[1, 3], limits=PATIENT)
    assert result.pass_at == {"1": pytest.approx(1 / 6), "3": pytest.approx(1 / 2)}
    assert result.failures == {"AssertionError": 4, "it ended the interpreter": 1}
    with pytest.raises(InputError, match="pass@4 needs as many samples, 3 are drawn"):
        measure_passes(problems, write, samples=3, ks=[4], limits=LIMITS)


@pytest.mark.usefixtures("guarded")
@pytest.mark.slow
def test_the_solutions_of_humaneval_pass_and_empty_ones_fail(shared_data: Path) -> None:
    lines = gzip.decompress((shared_data / "evaluation" / "human_eval.jsonl.gz").read_bytes()).splitlines()
    rows = [json.loads(line) for line in lines]
    problems: Problems = read_problems(Path("human_eval.jsonl"), rows)
    solutions = [row["canonical_solution"] for row in rows]
    solved = measure_passes(problems, lambda *_: solutions, samples=1, ks=[1], limits=SandboxLimits())
    assert solved.pass_at == {"1": 1.0}, solved.failures
    empty = measure_passes(problems, lambda *_: ["    pass\n"] * len(rows), samples=1, ks=[1], limits=LIMITS)
    assert empty.pass_at == {"1": 0.0}

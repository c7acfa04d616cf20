"""What people and networks get wrong, through the command that a person types.

A mistake is three lines and exit code 2, before anything heavy starts; damage inside a file is a row in the ledger
and costs nothing else; a disk that fills up stops the run until there is room, and then it goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from prefect.exceptions import TerminationSignal

from pipelines.cli import carry_out, cli
from pipelines.funnel import funnel_rows
from pipelines.run_folder import RunFolder, require_step
from sources.ingest import IngestConfig, ingest
from sources.inputs import expand_inputs
from storage.manifests import Dataset, open_dataset
from tests.corpus import url_of
from tests.flows.conftest import Inputs, command_environment, gristmill, run_options
from tests.flows.damage import Damaged, damaged_inputs, write_damaged

RECIPE_HEAD = (
    "format_version: 1\nname: r\nseed: 1\npolicy: web_default\ntokenizer:\n  train:\n    vocabulary_size: 600\n"
)
POLICY_HEAD = "format_version: 1\nname: p\nrules:\n"


def recipe(where: str = "source = 'web'", weight: str = "1", extra: str = "") -> str:
    return f'{RECIPE_HEAD}{extra}sources:\n  - name: web\n    where: "{where}"\n    weight: {weight}\n'


def policy(measure: str) -> str:
    return f'{POLICY_HEAD}  - {{rule: odd, measure: "{measure}", min: 1}}\n'


WRONG_YAML = {
    "unknown key": ("--recipe", recipe(extra="colour: red\n"), "colour"),
    "no YAML": ("--recipe", "a: [1\n", "not YAML"),
    "a list": ("--recipe", "- a\n", "r.yaml"),
    "weight of zero": ("--recipe", recipe(weight="0"), "takes nothing"),
    "weight below zero": ("--recipe", recipe(weight="-1"), "takes nothing"),
    "weight that is none": ("--recipe", recipe(weight=".nan"), "weight"),
    "reads a file": ("--recipe", recipe(where="length(read_csv('../secret.csv')) > 0"), "read_csv"),
    "reads a text": ("--policy", policy("length(read_text('/etc/passwd'))"), "read_text"),
    "COPY": ("--recipe", recipe(where="true); COPY x TO 'y' --"), "COPY"),
    "COPY alone": ("--recipe", recipe(where="COPY documents TO 'stolen.csv'"), "COPY"),
    "ATTACH": ("--recipe", recipe(where="ATTACH '../other.db' AS other"), "ATTACH"),
    "ATTACH behind": ("--policy", policy("1; ATTACH '/tmp/other.db'"), "ATTACH"),
    "a subquery": ("--recipe", recipe(where="(select 1) = 1"), "select"),
    "a table function": ("--recipe", recipe(where="exists (from '../secret.csv')"), "exists"),
    "a setting": ("--recipe", recipe(where="SET enable_external_access = true"), "SET"),
}  # fmt: skip


class Answer(NamedTuple):
    """What a person sees."""

    code: int
    error: str


@dataclass(frozen=True)
class Asker:
    """Types `gristmill run` in this process, where nothing is started before the mistake is found."""

    capsys: pytest.CaptureFixture[str]
    out: Path

    def run(self, *options: str) -> Answer:
        code = carry_out(["run", "--out", str(self.out), *options])
        return Answer(code, self.capsys.readouterr().err)


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Asker:
    monkeypatch.chdir(tmp_path)
    return Asker(capsys, tmp_path / "out")


def assert_well_said(answer: Answer, said: str) -> None:
    """Exit code 2 and three lines: what happened, where, and what to type."""
    assert_placed(answer, said)
    assert answer.error.rstrip().splitlines()[-1].startswith("  hint: "), answer.error


def assert_placed(answer: Answer, said: str) -> None:
    """Exit code 2, what happened, and where; the sentence itself says what to write instead."""
    assert answer.code == 2, answer.error
    assert answer.error.startswith("error: ") and "\n  at: " in answer.error and "Traceback" not in answer.error
    assert said.lower() in answer.error.lower(), answer.error


@pytest.mark.parametrize(("option", "text", "said"), WRONG_YAML.values(), ids=WRONG_YAML)
def test_wrong_yaml_names_its_line(
    ask: Asker, tmp_path: Path, inputs: Inputs, option: str, text: str, said: str
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    answer = ask.run(*inputs.options, option, str(path))
    assert_placed(answer, said)
    assert "r.yaml" in answer.error
    assert not (ask.out / "run.json").exists() and {p.name for p in tmp_path.iterdir()} <= {"r.yaml", "out"}


WRONG_PATHS = {
    "missing file": (["--web", "/nowhere/at/all.warc.gz"], "/nowhere/at/all.warc.gz"),
    "glob of nothing": (["--web", "{folder}/*.warc.bz3"], "matches no file"),
    "glob without folder": (["--web", "/nowhere/*.warc.gz"], "no folder"),
    "folder of nothing": (["--web", "{void}"], "holds no file of kind warc"),
    "empty file": (["--web", "{void}/empty.warc.gz"], "is empty (0 bytes)"),
    "empty files alone": (["--web", "{void}/*.gz"], "as all 2 files"),
    "named twice": (["--web", "{web}", "--web", "{folder}/a.*.gz"], "named twice"),
    "no such protocol": (["--web", "foo://bucket/a.warc.gz"], "foo"),
    "no such host": (["--web", "http://127.0.0.1:1/a.warc.gz"], "127.0.0.1:1"),
    "recipe that is missing": (["--web", "{web}", "--recipe", "nope"], "nope"),
    "recipe that is a folder": (["--web", "{web}", "--recipe", "{void}"], "void"),
    "recipe that is a crawl": (["--web", "{web}", "--recipe", "{web}"], "not YAML"),
    "policy that is missing": (["--web", "{web}", "--policy", "no_such_policy"], "no_such_policy"),
    "preset that is missing": (["--web", "{web}", "--preset", "huge"], "huge"),
    "labels that are missing": (["--web", "{web}", "--labels", "/nowhere/labels.jsonl"], "labels"),
    "encoder that is missing": (["--web", "{web}", "--encoder", "/nowhere/model"], "/nowhere/model"),
    "language model that is none": (["--web", "{web}", "--language-model", "{web}"], "a.warc.gz"),
    "out on an object store": (["--web", "{web}", "--out", "s3://bucket/run"], "inputs may be remote"),
    "out that is a file": (["--web", "{web}", "--out", "{web}"], "cannot write"),
    "out below a file": (["--web", "{web}", "--out", "{web}/run"], "cannot write"),
    "out where nothing can be": (["--web", "{web}", "--out", "/proc/nothing/run"], "cannot write"),
    "out with too long a name": (["--web", "{web}", "--out", "x" * 300], "cannot write"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "said"), WRONG_PATHS.values(), ids=WRONG_PATHS)
def test_a_wrong_path_is_named(ask: Asker, tmp_path: Path, inputs: Inputs, options: list[str], said: str) -> None:
    void = tmp_path / "void"
    void.mkdir()
    for name in ("empty.warc.gz", "too.gz"):
        (void / name).touch()
    if options == ["--web", "{void}"]:
        shutil.rmtree(void)
        void.mkdir()
    known = {"{web}": inputs.web / "a.warc.gz", "{folder}": inputs.web, "{void}": void}
    for mark, path in known.items():
        options = [option.replace(mark, str(path)) for option in options]
    assert_well_said(ask.run(*options), said)
    assert not (ask.out / "run.json").exists() and not (tmp_path / "s3:").exists()


WRONG_OPTIONS = {
    "column without a name": (["--column", "text"], "--column"),
    "column of no field": (["--column", "colour=red"], "colour"),
    "no workers": (["--workers", "0"], "workers"),
    "no steps": (["--train-steps", "0"], "train_steps"),
    "parts of nothing": (["--part-megabytes", "0"], "part_megabytes"),
    "no such option": (["--no-such-option"], "No such option"),
    "out that is empty": (["--out", ""], "--out"),
    "an input that is empty": (["--web", ""], "empty string"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "said"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_a_wrong_option_is_named(ask: Asker, inputs: Inputs, options: list[str], said: str) -> None:
    answer = ask.run(*inputs.options, *options)
    assert answer.code == 2 and said in answer.error and "Traceback" not in answer.error
    assert not (ask.out / "run.json").exists()


def test_a_disk_that_is_too_small_is_told_before_anything_starts(
    ask: Asker, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, 12_000_000))
    answer = ask.run(*inputs.options)
    assert_well_said(answer, "12.0 MB are free, and the run still needs about 501 MB")
    assert str(ask.out) in answer.error and not (ask.out / "run.json").exists()


def test_the_command_itself_ends_with_that_code_and_no_traceback(tmp_path: Path, inputs: Inputs) -> None:
    out = str(tmp_path / "out")
    done = gristmill("run", "--web", "/nowhere.warc", "--out", out, home=tmp_path, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: no file `/nowhere.warc`")
    assert "Traceback" not in done.stderr and not (tmp_path / "out" / "run.json").exists()


def test_a_prefect_server_that_does_not_answer_is_named(tmp_path: Path, inputs: Inputs) -> None:
    address = "http://127.0.0.1:1/api"
    done = gristmill(*run_options(inputs, tmp_path / "out"), home=tmp_path, check=False, PREFECT_API_URL=address)
    assert_well_said(Answer(done.returncode, done.stderr), "no Prefect server answers")
    assert address in done.stderr


@pytest.fixture(scope="module")
def damaged() -> list[Damaged]:
    return damaged_inputs()


def named(documents: pa.Table, file: str) -> list[str]:
    """URLs of a crawl's documents, titles of a dump's, in order."""
    rows = documents.select(["url", "title", "record"]).to_pylist()
    column = "title" if ".xml" in file else "url"
    return [row[column] for row in rows if row["record"]["file"] == file]


def noted(failures: pa.Table, file: str) -> list[tuple[str, str | None]]:
    rows = failures.select(["reason", "item", "file"]).to_pylist()
    return [(row["reason"], row["item"]) for row in rows if row["file"] == file]


def test_damage_costs_the_records_that_have_it_and_no_other(damaged: list[Damaged], tmp_path: Path) -> None:
    write_damaged(tmp_path, damaged)
    found = expand_inputs("web", [str(tmp_path)])
    assert [raw.name for raw in found] == sorted(one.name for one in damaged)
    for one in damaged:
        batches = list(ingest(next(raw for raw in found if raw.name == one.name), IngestConfig()))
        documents = pa.concat_tables([batch.documents for batch in batches])
        failures = pa.concat_tables([batch.failures for batch in batches])
        assert named(documents, one.name) == list(one.documents)
        assert noted(failures, one.name) == list(one.failures)
        assert sum(batch.records_seen for batch in batches) == len(one.documents) + len(one.failures)


def read(dataset: Dataset, columns: list[str] | None = None) -> pa.Table:
    return pa.concat_tables([dataset.read(part, columns) for part in dataset.parts])


def options_of(folder: Path, out: Path) -> list[str]:
    small = ["--recipe", str(folder / "recipe.yaml"), "--train-steps", "5", "--part-megabytes", "0.05"]
    inputs = ["--web", str(folder / "*.warc*"), "--encyclopedia", str(folder / "*.xml*")]
    return ["run", *inputs, *small, "--out", str(out)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_run_over_damage_accounts_for_everything(
    damaged: list[Damaged], inputs: Inputs, prefect_home: Path, tmp_path: Path
) -> None:
    write_damaged(tmp_path, damaged)
    for name in ("recipe.yaml", "policy.yaml"):
        shutil.copy(inputs.web / name, tmp_path)
    options = options_of(tmp_path, tmp_path / "out")
    done = gristmill(*options, home=prefect_home, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = RunFolder(tmp_path / "out")
    documents, failures = read(open_dataset(folder.documents)), read(open_dataset(folder.failures("ingest")))
    for one in damaged:
        assert sorted(named(documents, one.name)) == sorted(one.documents)
        assert noted(failures, one.name) == list(one.failures)
    text = dict(zip(documents["url"].to_pylist(), documents["text"].to_pylist(), strict=True))[url_of(301)]
    assert "\ufffd" in text and len(text) > 1000
    assert_accounted(folder, read_in=sum(len(one.documents) + len(one.failures) for one in damaged))
    assert_a_source_that_nothing_passed_is_named(tmp_path, options, prefect_home)


def assert_accounted(folder: RunFolder, *, read_in: int) -> None:
    """Records = failed + kept + dropped, and every document has one verdict."""
    ingested, judged = require_step(folder, "ingest").result, require_step(folder, "judge").result
    verdicts = read(open_dataset(folder.decisions(judged["policy"]) / "verdicts"))
    assert ingested["records"] == read_in == ingested["documents"] + sum(ingested["failures"].values())
    assert sorted(verdicts["doc_id"].to_pylist()) == sorted(read(open_dataset(folder.documents))["doc_id"].to_pylist())
    assert judged["kept"] + judged["dropped"] == ingested["documents"] and judged["kept"] > 0
    assert funnel_rows(folder)[-1]["left"] == judged["kept"]


def assert_a_source_that_nothing_passed_is_named(folder: Path, options: list[str], home: Path) -> None:
    """The same run with one more source, of documents that the policy drops one and all."""
    text = (folder / "recipe.yaml").read_text()
    path = folder / "recipe.yaml"
    path.write_text(text + "  - name: short\n    where: rules.num_words < 60\n    weight: 1\n")
    done = gristmill(*options, home=home, check=False, timeout=300)
    assert_well_said(Answer(done.returncode, done.stderr), "`short`")
    assert "recipe.yaml:" in done.stderr


DISK_BYTES = 620 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 620 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a disk can be mounted here by root only, and not in every container")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Take all of the disk but `leave` bytes, while others write to it."""
    filler = disk / "somebody-elses"
    with open(filler, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(max(file.tell() - leave, 0))
    return filler


def run_until(options: Sequence[str], home: Path, sign: Path) -> subprocess.Popen[str]:
    """Start a run, and come back when `sign` is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=command_environment(home),
        cwd=Path(__file__).resolve().parents[2],
    )
    while process.poll() is None and not sign.exists():
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_disk_that_fills_up_stops_the_run_until_there_is_room(
    inputs: Inputs, prefect_home: Path, small_disk: Path
) -> None:
    """Filled four times, at other steps and to other last bytes; then it ends as if nothing had been."""
    out = small_disk / "run"
    options: list[Any] = [*run_options(inputs, out)]
    for sign, leave in (
        ("run.json", 0),
        ("steps/ingest.json", 16_000),
        ("steps/judge.json", 60_000),
        ("checkpoints", 0),
    ):
        process = run_until(options, prefect_home, out / sign)
        filler = fill(small_disk, leave)
        _, said = process.communicate(timeout=400)
        assert_well_said(Answer(process.returncode, said), "MB are free")
        assert str(out) in said
        filler.unlink()
    done = gristmill(*options, home=prefect_home, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(path.name.startswith(".tmp-") for path in (out / "documents").iterdir())


@pytest.mark.parametrize("after", [None, ConnectionError("the server went too")])
def test_a_run_that_is_told_to_end_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, after: Exception | None
) -> None:
    """SIGTERM, which Prefect raises as an exception; what fails while the flow ends does not hide it."""

    def end(**_: Any) -> None:
        try:
            raise TerminationSignal(signal.SIGTERM)
        except TerminationSignal:
            if after is None:
                raise
            raise after from None

    monkeypatch.setattr(cli, "main", end)
    assert carry_out(["run"]) == 143
    assert capsys.readouterr().err == "stopped; run the same command to go on where it was\n"

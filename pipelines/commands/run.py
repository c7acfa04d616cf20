"""`gristmill run`: the whole path on the terminal; a finished run is recognised before anything heavy starts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import yaml
from rich.console import Console

from mixtures.inputs import KINDS
from pipelines.disk import explain_full_disk, free_bytes, input_bytes, missing_bytes, require_disk
from pipelines.named_files import quick_identity
from pipelines.named_inputs import named_inputs
from pipelines.request import ROOT, RunRequest
from pipelines.run_folder import RunFolder
from storage.commit import write_atomically
from storage.errors import InputError, ResourceError, disk_errors
from storage.manifests import MANIFEST, read_manifest

FINISHED_FILE = "finished.json"
SECONDS_PER_INPUT_MEGABYTE = 2.0
"""Two cores, extraction to token store; training comes on top."""
SIGNS_OF_NO_PREFECT = ("Failed to reach API", "ephemeral Prefect API server")


def run_command(options: Mapping[str, Any]) -> None:
    """Run, or print the summary of the run that is finished already."""
    started = time.monotonic()
    console = Console()
    request = _request(options)
    folder = RunFolder(request.root)
    identity = quick_identity(request, _yaml_files(request))
    if finished := _finished(folder, request, identity):
        console.print(f"This run is finished: nothing to do ({time.monotonic() - started:.1f} s).\n", highlight=False)
        console.print(finished["summary"], markup=False, highlight=False, soft_wrap=True)
        return
    _make_folder(folder.root)
    request = _with_sample(request, console)
    from pipelines.checks import check_request

    check_request(request)
    _say_needs(request, console)
    _run(request, console)
    from pipelines.losses import alarms, source_losses

    warnings = alarms(source_losses(folder), request.duplicate_alarm)
    summary = "\n".join([summarise(folder, time.monotonic() - started), *(f"warning: {text}" for text in warnings)])
    values = {"format_version": 1, "identity": identity, "summary": summary, "alarms": warnings}
    with explain_full_disk(request):
        write_atomically(folder.root / FINISHED_FILE, (json.dumps(values, indent=1) + "\n").encode())
    console.print("\n" + summary, markup=False, highlight=False, soft_wrap=True)


def _request(options: Mapping[str, Any]) -> RunRequest:
    values = dict(options)
    inputs = {kind: tuple(values.pop(kind)) for kind in KINDS}
    return RunRequest(
        inputs={kind: paths for kind, paths in inputs.items() if paths},
        columns=parse_pairs(values.pop("column"), "--column"),
        license=parse_pairs(values.pop("licence"), "--licence"),
        benchmark_fields=parse_pairs(values.pop("benchmark_field"), "--benchmark-field"),
        **values,
    )


def parse_pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """NAME=VALUE, each given once, as a mapping. Raises InputError for what is none."""
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise InputError(f"`{option} {item}` is not NAME=VALUE", hint=f"write `{option} text=body`, say")
        found[name] = value
    return found


def _yaml_files(request: RunRequest) -> list[Path]:
    """The recipe, the policy and the preset, of one's own or shipped, and what the recipe names beside itself."""
    shipped = {"recipe": ROOT / "mixtures" / "recipes", "policy": ROOT / "mixtures" / "policies"}
    preset = [Path(request.preset), ROOT / "trainer" / "presets" / f"{request.preset}.yaml"]
    recipes = [Path(request.recipe), shipped["recipe"] / f"{request.recipe}.yaml"]
    named = [path for recipe in recipes if recipe.is_file() for path in _named_by(recipe)]
    own = [Path(request.policy), shipped["policy"] / f"{request.policy}.yaml"] if request.policy else []
    files = [*recipes, *named, *own, *preset, *sorted(shipped["policy"].glob("*.yaml"))]
    return [file for file in files if file.is_file()]


def _named_by(recipe: Path) -> list[Path]:
    """A recipe's own policy and tokenizer, where it names files; none for what is no recipe, which the run will say."""
    try:
        values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        named, load = values.get("policy"), (values.get("tokenizer") or {}).get("load")
    except (OSError, ValueError, yaml.YAMLError, AttributeError, RecursionError):
        return []
    found = [recipe.parent / str(named)] if named else []
    if load:
        from tokenizer.vocabulary import tokenizer_files

        found += tokenizer_files(recipe.parent / str(load))
    return found


def _finished(folder: RunFolder, request: RunRequest, identity: str) -> dict[str, Any] | None:
    """The record of the finished run, if it is of this request and everything its manifests name is there."""
    try:
        values: dict[str, Any] = json.loads((folder.root / FINISHED_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    if values.get("identity") != identity or not folder.report.exists():
        return None
    datasets = [
        folder.ingested,
        *(place for place in (folder.rewritten, folder.cut, *folder.of_texts()) if (place / MANIFEST).exists()),
        folder.measured,
        folder.quality,
        *([folder.scores] if request.score else []),
        folder.catalogue,
        folder.hosts,
        *(folder.root / "tokens").glob("*"),
    ]
    for dataset in datasets:
        if not (dataset / MANIFEST).exists():
            return None
        for part in read_manifest(dataset).parts:
            file = dataset / part.file
            if not file.exists() or file.stat().st_size != part.bytes:
                return None
    return values


def _with_sample(request: RunRequest, console: Console) -> RunRequest:
    """The request with the embedded sample as its inputs, where it names none."""
    if named_inputs(request):
        return request
    from pipelines.sample import with_sample

    with console.status("preparing the embedded sample") as status:
        return with_sample(request, lambda what, done, total: status.update(f"{what} ({done} of {total})"))


def _say_needs(request: RunRequest, console: Console) -> None:
    """Say what the run will need. Raises DiskFull when the disk has less."""
    given, need, free = input_bytes(request), missing_bytes(request), free_bytes(request.root)
    minutes = given / 1e6 * SECONDS_PER_INPUT_MEGABYTE / 60 * 2 / (request.workers or os.cpu_count() or 1)
    console.print(
        f"{given / 1e6:,.1f} MB of input; about {need / 1e9:,.1f} GB of disk ({free / 1e9:,.1f} GB free) and "
        f"{max(minutes, 0.1):,.1f} minutes of curation, then training.",
        highlight=False,
        soft_wrap=True,
    )
    require_disk(request)


def _make_folder(root: Path) -> None:
    """Make the run's folder and see that files can be made in it. Raises ResourceError where they cannot."""
    try:
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=root).close()
    except OSError as error:
        raise ResourceError(
            f"cannot write: {error.strerror}", at=str(root), hint="choose a folder you may write to with `--out`"
        ) from error


def _run(request: RunRequest, console: Console) -> None:
    quiet_prefect()
    from pipelines.flows.whole import gristmill
    from pipelines.progress import LOG_FILE, TerminalObserver, observe

    with TerminalObserver(console, RunFolder(request.root).logs / LOG_FILE) as observer:
        observe(observer)
        with _prefect_answers():
            gristmill(**request.to_json())


@contextmanager
def _prefect_answers() -> Iterator[None]:
    """Prefect says by a RuntimeError, at the flow's first word, that no server answers it."""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in SIGNS_OF_NO_PREFECT):
            raise
        named = os.environ.get("PREFECT_API_URL")
        hint = "start one with `prefect server start`, or unset PREFECT_API_URL: a run needs none"
        raise ResourceError(
            "no Prefect server answers" if named else "Prefect's own server did not start in time",
            at=named or os.environ.get("PREFECT_HOME", "~/.prefect"),
            hint=hint if named else "is the machine very busy? type the same command again",
        ) from error


def quiet_prefect() -> None:
    """Leave the terminal to the observer; set before Prefect is imported."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")


def summarise(folder: RunFolder, seconds: float) -> str:
    """A few lines: what was kept, what was trained, how good, where to look."""
    from pipelines.run_folder import require_step
    from pipelines.training_stages import trained_stages

    ingest, judged = require_step(folder, "ingest").result, require_step(folder, "judge").result
    tokens, trained = require_step(folder, "tokenize").result, require_step(folder, "train").result
    lines = [
        f"{judged['kept']:,} of {judged['documents']:,} documents kept, from {ingest['records']:,} records "
        f"({sum(ingest['failures'].values()):,} failed)",
        f"{tokens['tokens']:,} tokens stored; a model of {trained['parameters']:,} parameters saw "
        f"{trained['tokens']:,}",
    ]
    for stage, record in trained_stages(folder):
        after = f" after stage `{stage.name}`" if stage.name else ""
        for source, row in record.result["sources"].items():
            lines.append(
                f"held-out {source}{after}: {row['bits_per_byte']:.3f} bits a byte "
                f"(unigram model: {row['unigram_bits_per_byte']:.3f})"
            )
    lines += [f"{seconds:.0f} seconds", f"report: {folder.report}"]
    return "\n".join(lines)

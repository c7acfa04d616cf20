"""`gristmill gc`: files of a run that its manifests, records and present configuration do not name.

Besides, the user's compiled kernels of source versions that no run has used for a month.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from pipelines.dedup.search.generations import read_record
from pipelines.request import saved_request
from pipelines.run_folder import RunFolder, StepRecord, find_step
from pipelines.steps import is_asked
from pipelines.story import run_folder_at
from pipelines.training_stages import FIRST, trained_stages
from storage.commit import TEMPORARY_PREFIX
from storage.kernels import prepare_kernel_cache, unused_kernels
from storage.manifests import MANIFEST, read_manifest


def gc_command(out: Path, *, yes: bool) -> None:
    """List what is not needed; with `yes`, delete it."""
    folder = run_folder_at(out)
    garbage = [*sorted(find_garbage(folder)), *unused_kernels(prepare_kernel_cache())]
    total = sum(_size(path) for path in garbage)
    for path in garbage:
        click.echo(f"{_size(path):>14,}  {_shown(path, folder)}")
    if not garbage:
        click.echo("nothing to remove: every file is named by a manifest or a record of the run")
        return
    if not yes:
        click.echo(f"{len(garbage)} entries, {total:,} bytes; `gristmill gc --yes --out {out}` removes them")
        return
    for path in garbage:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    click.echo(f"removed {len(garbage)} entries, {total:,} bytes")


def _shown(path: Path, folder: RunFolder) -> Path:
    return path.relative_to(folder.root) if path.is_relative_to(folder.root) else path


def find_garbage(folder: RunFolder) -> Iterator[Path]:
    """Left-over temporary files; dataset files in no manifest; whole folders of earlier policies, vocabularies,
    mixtures and checkpoints; work files of a finished deduplication."""
    yield from folder.root.rglob(f"{TEMPORARY_PREFIX}*")
    yield from _superseded(folder)
    current = set(_current_folders(folder))
    for manifest in folder.root.rglob(MANIFEST):
        dataset = manifest.parent
        if any(parent in current or parent == folder.root for parent in (dataset, *dataset.parents)):
            yield from _unnamed(dataset)
    if (folder.repeated / MANIFEST).exists() and folder.spans.is_dir():
        yield folder.spans
    yield from _searched(folder.duplicates)


def _current_folders(folder: RunFolder) -> Iterator[Path]:
    for step, key, place in _PINNED:
        record = find_step(folder, step)
        if record and key in record.result:
            yield from (folder.root / place / name for name in _pinned(folder, record, key))


_PINNED = (
    ("judge", "policy", "decisions"),
    ("vocabulary", "tokenizer", "vocabularies"),
    ("tokenize", "tokenizer", "tokens"),
    ("mix", "mixture", "mixtures"),
    ("train", "checkpoints", "checkpoints"),
    ("score", "head", "artifacts/quality-head"),
)


def _pinned(folder: RunFolder, record: StepRecord, key: str) -> list[str]:
    """What a record names under that key, and the mixtures and checkpoints of further stages."""
    mixtures = [stage[key] for stage in record.result.get("stages", ()) if key in stage]
    trained = trained_stages(folder) if record.step == FIRST else []
    return [str(record.result[key]), *mixtures, *(str(one.result[key]) for _, one in trained)]


def _superseded(folder: RunFolder) -> Iterator[Path]:
    """Folders named by an identity that no step's record pins any more; where a step has no record, nothing goes.
    So do all rewritten and cut documents of a run whose request does not ask for them any more."""
    request = saved_request(folder.root)
    for step, places in (("rewrite", (folder.rewritten, folder.rewrites)), ("spans", (folder.cut, folder.repeated))):
        if not is_asked(step, request):
            yield from (path for path in places if path.is_dir())
    if record := find_step(folder, "classify"):
        current = {one["stage"] for one in record.result["scorers"]} if is_asked("classify", request) else set()
        classified = folder.classified("any").parent
        yield from (path for path in sorted(classified.glob("*")) if path.name not in current)
        yield from (path for path in [folder.scores] if not current and path.is_dir())
    for step, key, place in _PINNED:
        record = find_step(folder, step)
        home = folder.root / place
        if record and key in record.result and home.is_dir():
            pinned = _pinned(folder, record, key)
            yield from (path for path in home.iterdir() if path.is_dir() and path.name not in pinned)


def _unnamed(dataset: Path) -> Iterator[Path]:
    """Files beside a manifest that no part of it owns (its own, its marker, or a pair that its facts name)."""
    manifest = read_manifest(dataset)
    owned = {MANIFEST, f"parts-{manifest.identity}.parquet"}
    for part in manifest.parts:
        owned |= {part.file, f"{part.identity}.json", *part.facts.get("files", {})}
    stems = {part.identity for part in manifest.parts}
    for path in dataset.iterdir():
        named = path.name in owned or path.name.split(".")[0] in stems or path.name.startswith(TEMPORARY_PREFIX)
        if path.is_file() and not named and path.suffix in (".parquet", ".json", ".bin", ".idx"):
            yield path


def _searched(duplicates: Path) -> Iterator[Path]:
    """What a finished search leaves behind: its work files, and what searches before it kept that it did not add to."""
    record = read_record(duplicates)
    if not record:
        return
    bases = {generation["base"] for generation in record["generations"]}
    yield from (path for path in [duplicates / "work"] if path.is_dir())
    kept = duplicates / "kept"
    yield from (path for path in kept.rglob("*.arrow") if path.name.split("-")[0] not in bases)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    return path.lstat().st_size

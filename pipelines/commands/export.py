"""`gristmill export`: kept documents as Parquet or a Hugging Face dataset; a mixture as shards or lists."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import click
import pyarrow.compute as pc

from pipelines.commands.export_documents import export_documents
from pipelines.commands.export_lists import LISTS, export_lists
from pipelines.commands.export_shards import export_shards, mixture_of
from pipelines.run_folder import RunFolder, find_step, require_step
from pipelines.story import run_folder_at
from storage.commit import write_atomically
from storage.errors import InputError
from storage.manifests import open_dataset

CARD = "README.md"


def export_command(
    out: Path,
    target: Path,
    form: str,
    *,
    partition: str | None = None,
    mixture: Path | None = None,
    base: str | None = None,
    stage: str | None = None,
) -> None:
    """Write the run's kept documents, or a mixture, to `target`, which must not exist or be empty."""
    if target.exists() and any(target.iterdir()):
        raise InputError("the folder to export to is not empty", at=str(target), hint="name a new folder")
    if partition and form != "parquet":
        raise InputError(f"`--partition-by` divides Parquet files, not `--format {form}`", hint="leave one of them out")
    if (mixture or base) and form not in LISTS:
        raise InputError(f"`--mixture` and `--base` go with {', '.join(LISTS)}, not `--format {form}`")
    if stage and (mixture or form not in (*LISTS, "shards")):
        raise InputError(f"`--stage {stage}` names a mixture of the run", hint="give it with `--format shards`, say")
    if form in LISTS:
        export_lists(mixture or _mixture_of(out, stage), target, form, base)
    elif form == "shards":
        export_shards(run_folder_at(out), target, stage)
    else:
        _export_texts(run_folder_at(out), target, form, partition)


def _mixture_of(out: Path, stage: str | None) -> Path:
    folder = run_folder_at(out)
    return folder.mixture(mixture_of(folder, stage))


def _export_texts(folder: RunFolder, target: Path, form: str, partition: str | None) -> None:
    policy = str(require_step(folder, "judge").result["policy"])
    counts = export_documents(folder, policy, target / "data", partition)
    write_atomically(target / CARD, card(folder, policy, counts).encode())
    if form == "dataset":
        _as_dataset(target)
    click.echo(f"{sum(counts.values()):,} documents written to {target}")


def _as_dataset(target: Path) -> None:
    from datasets import load_dataset

    cache = target / ".cache"
    loaded = load_dataset("parquet", data_files=str(target / "data" / "*.parquet"), split="train", cache_dir=str(cache))
    loaded.save_to_disk(str(target / "dataset"))
    shutil.rmtree(cache)
    shutil.rmtree(target / "data")
    (target / "dataset").rename(target / "data")


def card(folder: RunFolder, policy: str, counts: Counter[str]) -> str:
    """A data card: what it is, where from, by which rules, under which licences."""
    judged = require_step(folder, "judge").result
    licences = sorted({licence or "not stated" for licence in _licences(folder)})
    dropped = "\n".join(f"| {rule} | {number:,} |" for rule, number in judged["decided"].items())
    return f"""---
configs:
- config_name: default
  data_files: data/**/*.parquet
---
# Curated text

{sum(counts.values()):,} documents, kept of {judged["documents"]:,} by the policy `{policy}` of Gristmill.

| source | documents |
|---|---|
{chr(10).join(f"| {source} | {number:,} |" for source, number in sorted(counts.items()))}

Licences named by the sources: {", ".join(licences)}. The texts remain their publishers'.{_rewrites(folder)}

## Why documents were dropped

| rule that decided | documents |
|---|---|
{dropped}

`id` is the document's id in the run: `gristmill why ID` tells its whole story.
"""


def _rewrites(folder: RunFolder) -> str:
    record = find_step(folder, "rewrite")
    told = [f"`{name}` ({number:,})" for name, number in record.result["rewritten"].items()] if record else []
    return f" Texts were rewritten by {', '.join(told)}." if told else ""


def _licences(folder: RunFolder) -> set[str | None]:
    documents = open_dataset(folder.documents)
    found: set[str | None] = set()
    for part in documents.parts:
        found |= set(pc.unique(documents.read(part, ["licence"])["licence"]).to_pylist())
    return found

"""`gristmill tokenizer`: what a tokenizer does to a run's documents, and a `tokenizer.json` from other files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.corpus import draw_keys
from mixtures.hosts import open_catalogue
from mixtures.wording import align_columns, say_count
from pipelines.run_folder import RunFolder, require_step
from pipelines.story import run_folder_at
from storage.errors import InputError
from storage.manifests import open_dataset
from tokenizer.encode import Encoder
from tokenizer.survey import Survey, Tally, survey_json, survey_tokenizer
from tokenizer.vocabulary import TokenizerFile, load_tokenizer, read_vocabulary, write_vocabulary

COLUMNS = ("language", "source")
SHOWN = 20
PURPOSE = "survey"


def survey_command(
    tokenizer: Path | None, out: Path, *, sample: int, end_of_document: str | None, scheme: str | None, as_json: bool
) -> None:
    """Encode and decode a sample of the run's documents, and print what came of it."""
    if sample < 1:
        raise InputError(f"a sample of {sample} bytes holds no document", hint="name a size, e.g. `--sample 20000000`")
    folder = run_folder_at(out)
    opened = (
        _run_tokenizer(folder)
        if tokenizer is None
        else load_tokenizer(tokenizer, end_of_document=end_of_document, scheme=scheme)
    )
    encoder = Encoder(opened)
    survey = survey_tokenizer(encoder, sampled_texts(folder, sample))
    if as_json:
        click.echo(json.dumps(survey_json(survey, COLUMNS, encoder.added_ids), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(survey_lines(survey, encoder)))


def convert_command(source: Path, target: Path, *, end_of_document: str | None, scheme: str | None) -> None:
    """Write `tokenizer.json` and `vocabulary.json` into TARGET."""
    if (target / "tokenizer.json").exists():
        raise InputError("there is a tokenizer here already", at=str(target), hint="name a new folder")
    loaded = load_tokenizer(source, end_of_document=end_of_document, scheme=scheme)
    write_vocabulary(target, loaded)
    vocabulary = loaded.vocabulary
    click.echo(
        f"{vocabulary.size:,} entries, padded {vocabulary.padded_size:,}, end of document {vocabulary.end_of_document}"
    )
    click.echo(f"tokenizer: {target / 'tokenizer.json'}")


def _run_tokenizer(folder: RunFolder) -> TokenizerFile:
    return read_vocabulary(folder.vocabulary(require_step(folder, "vocabulary").result["tokenizer"]))


def sampled_texts(folder: RunFolder, most_bytes: int) -> Iterator[tuple[list[tuple[str, ...]], pa.StringArray]]:
    """Texts of about `most_bytes`, drawn by a hash of their ids, each with its language and source."""
    documents, catalogue = open_dataset(folder.documents), open_catalogue(folder.catalogue)
    total = sum(
        int(pc.sum(catalogue.read(part, ["text_bytes"])["text_bytes"]).as_py() or 0) for part in catalogue.parts
    )
    limit = np.uint64(min(1.0, most_bytes / max(total, 1)) * (2**64 - 2048))
    for ours, theirs in zip(documents.parts, catalogue.parts, strict=True):
        rows = catalogue.read(theirs)
        groups = _groups(rows)
        drawn = draw_keys(rows["doc_id"], PURPOSE, 0) <= limit
        start = 0
        for batch in documents.batches(ours, ["text"]):
            here = np.flatnonzero(drawn[start : start + batch.num_rows])
            if len(here):
                yield [groups[start + i] for i in here], batch.column("text").take(pa.array(here))
            start += batch.num_rows


def _groups(rows: pa.Table) -> list[tuple[str, ...]]:
    sources = rows["source"].to_pylist()
    if "language" not in rows.column_names:
        return [("unknown", source) for source in sources]
    labels = pc.struct_field(rows["language"], "label").to_pylist()
    return [(label or "unknown", source) for label, source in zip(labels, sources, strict=True)]


def survey_lines(survey: Survey, encoder: Encoder) -> list[str]:
    """Tables by language and by source, then the entries that never came up and the texts that changed."""
    lines = []
    for i, name in enumerate(COLUMNS):
        tallies = list(survey.along(i).items())
        rows: list[tuple[str, ...]] = [(name, "documents", "bytes", "tokens", "bytes/token", "tokens/word", "changed")]
        rows += [_row(group, tally) for group, tally in tallies[:SHOWN]]
        if len(tallies) > SHOWN:
            rows.append(_row(f"{len(tallies) - SHOWN} more", sum((tally for _, tally in tallies[SHOWN:]), Tally())))
        lines += [*align_columns([*rows, _row("all", survey.total)]), ""]
    unused = survey.unused(encoder.added_ids)
    size = len(survey.counts) - len(encoder.added_ids)
    names = ", ".join(repr(encoder.decode([identifier])) for identifier in unused[:8])
    lines.append(
        f"{len(unused):,} of {size:,} entries ({len(unused) / max(size, 1):.1%}) never came up: {names or 'none'}"
    )
    changed = survey.total.changed
    lines.append(f"{changed:,} texts change" if changed else "every text comes back unchanged")
    return lines


def _row(name: str, tally: Tally) -> tuple[str, ...]:
    return (
        name,
        f"{tally.documents:,}",
        say_count(tally.bytes),
        say_count(tally.tokens),
        f"{tally.bytes_per_token:.2f}",
        f"{tally.tokens_per_word:.2f}",
        f"{tally.changed:,}",
    )

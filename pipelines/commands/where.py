"""`gristmill where`: which document stands at a place of a shard, on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pipelines.document_map import find_token, open_shard, tell_place
from pipelines.run_folder import RunFolder

_MARKS = ("[", "]")


def where_command(path: Path, offset: int, *, by: str, out: Path | None, as_json: bool) -> None:
    """Print what is known of the token at that place."""
    shard = open_shard(path)
    told = tell_place(shard, find_token(shard, offset, by), RunFolder(out.absolute()) if out else None)
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False, indent=1, default=str))
        return
    for name, value in _lines(told):
        click.echo(f"{name:<10} {value}")


def _lines(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    token, document = told["token"], told["document"]
    yield "token", f"{token['offset']:,}: {token['in_sequence']:,} of {token['of']:,} in sequence {token['sequence']:,}"
    yield "byte", f"{token['byte']:,} of the .bin, id {token['id']}"
    if mixture := told.get("mixture"):
        passes = f"pass {mixture['pass']} of {mixture['repeats']}"
        yield "mixture", f"{mixture['split']} of source {mixture['source']}, {passes}"
    if document is None:
        yield "doc_id", "none: this is padding, behind the last document of a packed sequence"
        return
    yield "doc_id", document["doc_id"]
    yield from _origin(document)
    if stored := told.get("stored"):
        yield "stored", f"{stored['bin']}, sequence {stored['sequence']:,}, {stored['tokens']:,} tokens"
    if verdict := told.get("verdict"):
        by = f" by {verdict['rule']}" if verdict.get("rule") else ""
        yield "verdict", f"{verdict.get('verdict', 'not known any more')}{by}, policy {verdict['policy'][:12]}"
    if text := told["text"]:
        here = text["here"].join(_MARKS)
        yield "text", " ".join((text["before"] + here + text["after"]).split())


def _origin(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "record" not in document:
        yield "record", "not known here: name the run that this was exported from with `--out`"
        return
    record = document["record"]
    yield "url", document["url"] or "none"
    place = [f"byte {record['offset']:,}, {record['length']:,} bytes"] if record["offset"] is not None else []
    page = [f"page {record['page']}"] if record["page"] else []
    yield "record", ", ".join([record["file"], *place, *page])
    yield "document", f"{document['part']}, row {document['row']:,}"

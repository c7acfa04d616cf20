"""`gristmill why`: a document's story on the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from pipelines.story import require_documents, run_folder_at, story_json, tell_story
from storage.schema import OF_PAGES

_INDENT = 15
_PLACES = 3
_SCORED = ("quality", "scores", "ensemble")
_TIE = "\N{NO-BREAK SPACE}"


def why_command(asked: str, out: Path, *, policy: str | None, as_json: bool) -> None:
    """Print the story of every document with that id or URL."""
    folder = run_folder_at(out)
    stories = [tell_story(folder, found, policy) for found in require_documents(folder, asked)]
    if as_json:
        for story in stories:
            click.echo(story_json(story))
        return
    console = Console()
    for story in stories:
        _print(console, story)


def _print(console: Console, story: dict[str, Any]) -> None:
    document = story["document"]
    _heading(console, document["title"] or document["url"] or document["doc_id"])
    _line(console, "doc_id", document["doc_id"])
    _line(console, "source", document["source"])
    _line(console, "url", document["url"] or "none")
    record = document["record"]
    place = f"byte {record['offset']:,}, {record['length']:,} bytes" if record["offset"] is not None else ""
    page = f"page {record['page']}" if record["page"] else ""
    _line(console, "record", ", ".join(part for part in (record["file"], place, page) if part))
    _line(console, "collected", document["collected_at"] or "not known")
    for name in ("licence", *OF_PAGES):
        if document.get(name):
            _line(console, name.replace("_", " "), document[name])
    _line(console, "text", f"{document['characters']:,} characters, {document['bytes']:,} bytes")
    _line(console, "", " ".join(document["begins"].split())[:200] + "…")
    if "rewritten" in story:
        _heading(console, "Rewritten")
        _values(console, story["rewritten"])
    _heading(console, "Measured")
    _values(console, story["measured"])
    _verdict(console, story)
    _heading(console, "Tokens")
    for place in story["tokens"]:
        _line(
            console,
            place["bin"],
            f"sequence {place['sequence']}, byte {place['byte_offset']:,}, {place['tokens']:,} tokens",
        )
    if not story["tokens"]:
        _line(console, "", "in no token store")
    for taken in story["mixtures"]:
        _line(
            console,
            "mixture",
            f"{taken['mixture'][:12]}: {taken['split']} of source {taken['source']}, {taken['repeats']} times, "
            f"{taken['prefix']} from sequence {taken['sequence']}, token {_listed(taken['offsets'])}",
        )


def _values(console: Console, stages: dict[str, Any]) -> None:
    for stage, values in stages.items():
        found = dict(_flat(values)) if isinstance(values, dict) else {"value": values}
        told = [f"{name}{_TIE}{_number(value)}" for name, value in found.items() if _tells(stage, value)]
        if rest := len(found) - len(told):
            told.append(f"{rest} more are 0 or none" if told else "nothing found")
        _paragraph(console, stage, ", ".join(told))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{edu: {value: 3}}` as `edu.value`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _tells(stage: str, value: Any) -> bool:
    """Whether a value is worth a word: all but nulls and zeros, and of scores the zeros too (bucket 0 is the worst)."""
    return value is not None if stage in _SCORED else bool(value)


def _paragraph(console: Console, name: str, text: str) -> None:
    """A line that goes on under itself where the terminal ends."""
    width = max(console.width - _INDENT, 40)
    for row in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
        _line(console, name, row.replace(_TIE, " "))
        name = ""


def _verdict(console: Console, story: dict[str, Any]) -> None:
    if "verdict" not in story:
        return
    verdict = story["verdict"]
    _heading(
        console,
        f"Verdict: {verdict.get('verdict', 'none')}" + (f" by {verdict['rule']}" if verdict.get("rule") else ""),
    )
    for reason in story["reasons"]:
        mark = "decided" if reason["decided"] else "also failed"
        _line(
            console,
            reason["rule"],
            f"{mark}: measured {_number(reason['measured'])}, limit {_number(reason['limit'])} "
            f"{reason['evidence'] or ''}",
        )
    if verdict.get("cluster_size", 1) > 1:
        _line(console, "cluster", f"{verdict['cluster_size']} documents resemble one another ({verdict['cluster_id']})")


def _heading(console: Console, text: str) -> None:
    console.print(Text(f"\n{text}", style="bold"))


def _line(console: Console, name: str, value: object) -> None:
    console.print(Text.assemble((f"  {name:<{_INDENT - 3}} ", "dim"), str(value)), soft_wrap=True)


def _listed(offsets: list[int]) -> str:
    return ", ".join(f"{offset:,}" for offset in offsets)


def _number(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict) and "start" in value[0]:
        places = [f"{place['start']:,}–{place['end']:,}" for place in value[:_PLACES]]
        return " ".join(places) + (f" and {len(value) - _PLACES} more" if len(value) > _PLACES else "")
    return f"{value:.4g}" if isinstance(value, float) else str(value)

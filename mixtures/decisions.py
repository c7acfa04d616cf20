"""Decisions on disk: the ledger of one policy, `verdicts/` and `reasons/`, a part each for every catalogue part.

A policy writes into a folder named by its identity, so a changed one stands beside the old. The manifests are written
only when documents in = kept + dropped. That each duplicate names a document that was kept is checked part by part, by
whoever knows the duplicates (`pipelines/duplicates.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mixtures.binding import BoundPolicy
from mixtures.judge import REASONS, VERDICTS, Decisions
from mixtures.policy import Policy
from storage.errors import DatasetError
from storage.identity import content_hash, fingerprint
from storage.manifests import Manifest, write_manifest
from storage.parts import Part, commit_table

VERSION = 2
TALLIES = ("decided", "failed", "missing")


@dataclass(frozen=True)
class DecisionParts:
    """The two committed parts of one catalogue part."""

    verdicts: Part
    reasons: Part


def commit_decisions(folder: Path, catalogue: Part, policy: BoundPolicy, decisions: Decisions) -> DecisionParts:
    """Write both tables of a part under `folder` (`decisions/<policy identity>`)."""
    content = _content(decisions.verdicts), _content(decisions.reasons)
    identity = fingerprint(
        {"decisions": VERSION, "catalogue": catalogue.sha256, "policy": policy.identity, "content": content}
    )
    facts = {**decisions.facts, "catalogue": catalogue.sha256}
    reasons = commit_table(
        folder / "reasons",
        identity,
        decisions.reasons,
        schema=REASONS,
        of=catalogue.of,
        facts={"catalogue": catalogue.sha256},
        narrow=True,
    )
    verdicts = commit_table(
        folder / "verdicts", identity, decisions.verdicts, schema=VERDICTS, of=catalogue.of, facts=facts, narrow=True
    )
    return DecisionParts(verdicts, reasons)


def publish_decisions(folder: Path, policy: Policy, parts: Sequence[DecisionParts]) -> tuple[Manifest, Manifest]:
    """Write the manifests of `verdicts/` and `reasons/`. Raises DatasetError when a document has no verdict."""
    facts = total_facts([part.verdicts for part in parts])
    stage = {
        "name": "judge",
        "version": VERSION,
        "policy_identity": policy.identity(),
        "policy": policy.model_dump(mode="json", exclude_none=True),
    }
    manifests = []
    for kind, listed in (("reasons", [p.reasons for p in parts]), ("verdicts", [p.verdicts for p in parts])):
        identity = fingerprint({"kind": kind, "policy": policy.identity(), "parts": [part.identity for part in listed]})
        manifest = Manifest(kind=kind, identity=identity, stage=stage, parts=tuple(listed), facts=facts)
        write_manifest(folder / kind, manifest)
        manifests.append(manifest)
    return manifests[1], manifests[0]


def duplicate_kinds(verdicts: Manifest) -> dict[str, str]:
    """The kind of duplicates that each of the policy's rules drops, for those that do."""
    rules = verdicts.stage["policy"]["rules"]
    return {rule["rule"]: rule["duplicates"] for rule in rules if "duplicates" in rule}


def total_facts(verdicts: Sequence[Part]) -> dict[str, Any]:
    """Kept and dropped over all parts, and the tallies by rule and by source.

    Raises DatasetError when in is not kept + dropped.
    """
    rows, kept, dropped = (
        sum(part.rows for part in verdicts),
        sum(part.facts["kept"] for part in verdicts),
        sum(part.facts["dropped"] for part in verdicts),
    )
    if kept + dropped != rows:
        raise DatasetError(f"{rows} documents were judged, but {kept} kept and {dropped} dropped")
    tallies = {name: _add(part.facts[name] for part in verdicts) for name in TALLIES}
    return {"kept": kept, "dropped": dropped, **tallies, "sources": _add_sources(verdicts)}


def _add(tallies: Iterable[Mapping[str, int]]) -> dict[str, int]:
    counter: Counter[str] = Counter()
    for tally in tallies:
        counter.update(tally)
    return dict(sorted(counter.items()))


def _add_sources(verdicts: Sequence[Part]) -> dict[str, dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for part in verdicts:
        for source, counts in part.facts["sources"].items():
            found.setdefault(source, []).append(counts)
    return {
        source: {"kept": sum(each["kept"] for each in counts), "decided": _add(each["decided"] for each in counts)}
        for source, counts in sorted(found.items())
    }


def _content(table: pa.Table) -> bytes:
    """A hash of the rows: which duplicates were found elsewhere is in no other identity."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return content_hash(sink.getvalue().to_pybytes())

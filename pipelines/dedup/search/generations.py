"""Generations: which parts a search adds to what an earlier one has found, and the record that a finished one leaves.

Parts have numbers for good: those of the earlier search keep theirs, new ones follow. So a place (part number << 32 |
row) means the same document for as long as the corpus only grows, and nothing that was kept is rewritten. If a part is
gone or its bytes changed, or the settings did, all parts are one new generation.

Numbers of ranges are powers of two and never shrink, so an old range holds whole new ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.dedup.parameters import DedupConfig, SemanticConfig, SignatureConfig
from pipelines.dedup.range_files import RangeFiles
from pipelines.dedup.search.texts import Texts
from pipelines.dedup.shuffle import choose_num_ranges
from pipelines.dedup.verify import choose_num_groups
from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.identity import fingerprint

VERSION = 2
RECORD = "search.json"
BANDS_PER_RANGE = 2_000_000
"""Arrays of 16 MB, which the allocator gives out again: with twice as many, clearing fresh pages took a third more."""
VECTORS_PER_GROUP = 100_000
"""At 384 dimensions and three clusters a document 250 MB."""
DOCUMENTS_PER_NODE_RANGE = 2_000_000
"""A task that settles a range holds the documents of it that resemble another, 250 bytes each and their pairs."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Parts [first, end), searched together. `ranges`: of hashes and bands; `nodes`: of places and components;
    `groups`: of what is verified."""

    base: str
    first: int
    end: int
    rows: int = 0
    ranges: int = 1
    nodes: int = 1
    groups: int = 1

    @property
    def parts(self) -> range:
        return range(self.first, self.end)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What all tasks of a search share, picklable and small; the last generation is the one that is searched."""

    root: Path
    settings: Mapping[str, Any]
    texts: Texts
    generations: tuple[Generation, ...]

    @property
    def config(self) -> DedupConfig:
        return dedup_config(self.settings)

    def looks_for(self, kind: str) -> bool:
        """Whether files of that kind are made at all."""
        asked = {"urls": self.config.urls, "semantic": self.config.semantic is not None}
        return asked.get(kind.removeprefix("edges-"), True)

    @property
    def now(self) -> Generation:
        return self.generations[-1]

    @property
    def before(self) -> tuple[Generation, ...]:
        return self.generations[:-1]

    @property
    def files(self) -> RangeFiles:
        return self.files_of(self.now)

    def files_of(self, generation: Generation) -> RangeFiles:
        return RangeFiles(self.root, generation.base)

    @property
    def fresh_from(self) -> int:
        """The least place of this generation."""
        return self.now.first << 32


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What a search is to do: checksums of all parts by number, and the generations, the last one without its sizes.

    `anew`: why nothing of an earlier search could be used; empty where something was, or there was none.
    """

    checksums: tuple[str, ...]
    generations: tuple[Generation, ...]
    anew: str = ""


def dedup_config(settings: Mapping[str, Any]) -> DedupConfig:
    """The DedupConfig of its JSON form."""
    values = dict(settings)
    semantic = values.pop("semantic", None)
    return DedupConfig(
        signature=SignatureConfig(**values.pop("signature")),
        semantic=SemanticConfig(**semantic) if semantic else None,
        **values,
    )


def plan_growth(root: Path, settings: Mapping[str, Any], checksums: Sequence[str]) -> Growth:
    """Number the parts (sha256 of each), beside those of the search that was finished here last."""
    record = read_record(root)
    if anew := _refusal(record, settings, checksums):
        return Growth(checksums=tuple(checksums), generations=(_generation(settings, (), checksums),), anew=anew)
    known = record.get("parts", [])
    earlier = tuple(Generation(**values) for values in record.get("generations", []))
    added = sorted(set(checksums) - set(known), key=checksums.index)
    if known and not added:
        return Growth(checksums=tuple(known), generations=earlier)
    grown = _generation(settings, earlier, added)
    return Growth(checksums=(*known, *added), generations=(*earlier, grown))


def with_sizes(growth: Growth, settings: Mapping[str, Any], rows: int, shingles: int) -> tuple[Generation, ...]:
    """The generations, the last with its sizes: `rows` and `shingles` are those of its own parts."""
    *before, now = growth.generations
    total = rows + sum(generation.rows for generation in before)
    bands = dedup_config(settings).signature.bands
    # New documents are verified against old ones too: about one for each.
    groups = choose_num_groups(shingles * (2 if before else 1))
    if settings.get("semantic"):
        groups = max(groups, choose_num_ranges(total, VECTORS_PER_GROUP))
    ranges = _power_of_two(choose_num_ranges(total * bands, BANDS_PER_RANGE))
    nodes = _power_of_two(choose_num_ranges(total, DOCUMENTS_PER_NODE_RANGE))
    return (*before, replace(now, rows=rows, ranges=ranges, nodes=nodes, groups=groups))


def write_record(search: Search, checksums: Sequence[str]) -> None:
    """Say that the search is finished: from now on it is what a later one adds to."""
    record = {
        "format_version": VERSION,
        "settings": dict(search.settings),
        "parts": list(checksums),
        "generations": [asdict(generation) for generation in search.generations],
    }
    write_atomically(search.root / RECORD, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())


def open_search(root: Path, texts: Texts) -> Search:
    """The finished search of a folder. Raises DatasetError where there is none."""
    record = read_record(root)
    if not record:
        raise DatasetError("no search for duplicates has been finished here", at=str(root), hint="run it again")
    generations = tuple(Generation(**values) for values in record["generations"])
    return Search(root=root, settings=record["settings"], texts=texts, generations=generations)


def read_record(root: Path) -> dict[str, Any]:
    """What the search that was finished here last said of itself; empty where there is none."""
    try:
        record: dict[str, Any] = json.loads((root / RECORD).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        hint = "remove it: the search starts anew"
        raise DatasetError("the record of a search is not JSON", at=str(root / RECORD), hint=hint) from error
    return record


def _refusal(record: Mapping[str, Any], settings: Mapping[str, Any], checksums: Sequence[str]) -> str:
    """Why the search that was finished here cannot be added to; empty where it can, or where there is none."""
    if not record:
        return ""
    if record["format_version"] != VERSION or record["settings"] != json.loads(json.dumps(dict(settings))):
        return "the settings of the search changed"
    gone = len(set(record["parts"]) - set(checksums))
    return f"{gone} of {len(record['parts'])} parts are gone or changed" if gone else ""


def _generation(settings: Mapping[str, Any], before: Sequence[Generation], added: Sequence[str]) -> Generation:
    first = before[-1].end if before else 0
    basis = {"version": VERSION, "settings": settings, "before": [g.base for g in before], "parts": list(added)}
    return Generation(base=fingerprint(basis), first=first, end=first + len(added))


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()

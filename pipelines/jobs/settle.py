"""Settling: keepers range by range over files, with the pairs verified that the policy's order turned out to need.

A range is settled, says which pairs of crowds it lacks, and is settled again when they are verified, at most
SETTLE_ROUNDS times; ranges that lack nothing are done after one. What one range asks for goes through groups of its
own, so its pairs come back to it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mixtures.binding import BoundPolicy, bind_policy
from mixtures.fitting import limits_from_json
from mixtures.hosts import open_catalogue
from mixtures.licences import load_judging
from pipelines.dedup.candidates import CANDIDATES
from pipelines.dedup.components import TRAVELLING
from pipelines.dedup.keepers import SETTLE_ROUNDS
from pipelines.dedup.range_files import RangeFiles, read_range
from pipelines.dedup.search.generations import Search
from pipelines.dedup.search.run import Run, verify_groups
from pipelines.dedup.search.verification import Group
from pipelines.duplicates import read_found, settle_range
from pipelines.run_folder import RunFolder
from storage.identity import fingerprint


@dataclass(frozen=True, kw_only=True)
class Settling:
    """What the tasks of one policy's settling share. `ranked`: files of the members' ranks; `groups`: how many groups
    verify what one range asks for."""

    root: Path
    judging: Mapping[str, Any]
    fitted: dict[str, Any]
    files: RangeFiles
    ranked: tuple[Path, ...]
    groups: int
    search: Search

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.root)

    def bind(self) -> BoundPolicy:
        catalogue = open_catalogue(self.folder.catalogue)
        limits = limits_from_json(self.fitted)
        return bind_policy(load_judging(self.judging), catalogue.schema(catalogue.parts[0]), limits)

    def asked(self, turn: int) -> RangeFiles:
        """The files of the pairs that a round asked for."""
        return RangeFiles(self.files.folder / "asked", fingerprint([self.search.now.base, self.files.base, turn]))

    def asked_groups(self, number: int) -> range:
        return range(number * self.groups, (number + 1) * self.groups)


def settle_ranges(settling: Settling, run_tasks: Run, num_ranges: int) -> list[str]:
    """Settle every range, verify the pairs that some ask for, and settle those again until they ask for none."""
    last, open_ranges = [0] * num_ranges, list(range(num_ranges))
    for turn in range(SETTLE_ROUNDS + 1):
        tasks = [{"settling": settling, "number": number, "round": turn} for number in open_ranges]
        missing = [result["missing"] for result in run_tasks(settle_one_range, tasks)]
        for number in open_ranges:
            last[number] = turn
        open_ranges = [number for number, count in zip(open_ranges, missing, strict=True) if count]
        if not open_ranges or turn == SETTLE_ROUNDS:
            break
        verify_groups(settling.search, settling.asked(turn), _asked_groups(settling, open_ranges, turn), run_tasks)
    return [str(settling.files.path(f"settled-{turn}", number)) for number, turn in enumerate(last)]


def _asked_groups(settling: Settling, numbers: list[int], turn: int) -> list[Group]:
    return [
        Group(number=group, range=i, candidates=(settling.files.path(f"missing-{turn}", number),))
        for number in numbers
        for i, group in enumerate(settling.asked_groups(number))
    ]


def settle_one_range(arguments: dict[str, Any]) -> dict[str, Any]:
    """SETTLED of one range after the pairs of earlier rounds, and the CANDIDATES that it still asks for."""
    settling, number, turn = arguments["settling"], arguments["number"], arguments["round"]
    files = settling.files
    done = files.facts(f"settled-{turn}", number)
    if done is None:
        found = read_found(settling.folder, number)
        asked = [CANDIDATES.empty_table()]
        for earlier in range(turn):
            found = found.with_pairs(_verified(settling, earlier, number))
            asked += _asked(files, earlier, number, settling.groups)
        settled, missing = settle_range(
            settling.bind(), settling.ranked, number, found, pa.concat_tables(asked), settling.groups
        )
        files.commit(f"missing-{turn}", number, missing)
        done = files.commit(f"settled-{turn}", number, settled, missing=len(missing))
    return {"documents": 0, "missing": done["missing"]}


def _asked(files: RangeFiles, turn: int, number: int, num_groups: int) -> list[pa.Table]:
    return [read_range(files.paths(f"missing-{turn}", [number]), group, CANDIDATES) for group in range(num_groups)]


def _verified(settling: Settling, turn: int, number: int) -> pa.Table:
    """PAIRS that a range asked for in a round."""
    files = settling.asked(turn).paths("kept/pairs", settling.asked_groups(number))
    tables = [read_range(files, node, TRAVELLING["pairs"]) for node in range(settling.search.now.nodes)]
    return pa.concat_tables(tables).drop_columns(["range"])

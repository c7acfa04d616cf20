"""Ten thousand damaged files of every format through the readers: crashes, hangs, memory, and undamaged records lost.

Deterministic by `--seed`. Structure-aware: half of the cases of a compressed format are damaged inside, before they
are packed. With `--check-bounds` the readers' kernels are compiled to raise at every read behind an array's end.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.fuzzing.cases import Outcome, outcomes
from benchmarks.fuzzing.formats import all_formats
from benchmarks.table import ROOT, Row, publish


def main(arguments: list[str]) -> int:
    """Run the cases, print the table and the faults; 1 if there are any."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_500)
    parser.add_argument("--seed", type=int, default=0, help="the number of each format's first case")
    parser.add_argument("--only", help="formats whose names begin so")
    parser.add_argument("--check-bounds", action="store_true")
    parser.add_argument("--dry", action="store_true", help="write no table")
    options = parser.parse_args(arguments)
    names = [form.name for form in all_formats() if form.name.startswith(options.only or "")]
    each = -(-options.cases // len(names))
    cases = [(name, seed) for name in names for seed in range(options.seed, options.seed + each)]
    found = list(outcomes(cases, _environment(check_bounds=options.check_bounds)))
    for one in found:
        if one.fault:
            print(f"{one.name}, case {one.seed} ({one.how}): {one.fault}")
    for one in sorted(found, key=lambda one: one.peak_bytes)[-3:] + sorted(found, key=lambda one: one.seconds)[-3:]:
        print(f"{one.name}, case {one.seed}: {one.peak_bytes / 1e6:.0f} MB, {one.seconds:.2f} s")
    if not options.dry:
        publish("fuzz", list(rows(found)), packages=("isal", "zstandard", "brotli", "pyarrow", "orjson", "numba"),
                notes=notes(found, options.seed))  # fmt: skip
    return int(any(one.fault for one in found))


def _environment(*, check_bounds: bool) -> Mapping[str, str]:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(Path.home() / ".cache" / "gristmill" / "checked")}
    return {**os.environ, "PYTHONPATH": paths, **(checked if check_bounds else {})}


def rows(found: Sequence[Outcome]) -> Iterator[Row]:
    """Cases by format, and over all the faults, the slowest and the largest."""
    for name, group in groupby(found, key=lambda one: one.name):
        yield Row(what=f"{name}: damaged files read", figure=len(list(group)), unit="cases")
    yield Row(what="all formats: damaged files read", figure=len(found), unit="cases")
    for fault in ("crash", "hang", "raised", "undamaged"):
        yield Row(what=f"ended with: {fault}", figure=sum(one.fault.startswith(fault) for one in found), unit="cases")
    yield Row(what="longest CPU time of a case", figure=max(one.seconds for one in found), unit="s")
    yield Row(what="most memory of a case", figure=max(one.peak_bytes for one in found) / 1e6, unit="MB")


def notes(found: Sequence[Outcome], seed: int) -> list[str]:
    """What the records became, by format."""
    lines = [f"cases {seed} and on of each format, by the mutations of `benchmarks/fuzzing/mutations.py`"]
    for name, group in groupby(found, key=lambda one: one.name):
        kept = list(group)
        sums = {
            field: sum(getattr(one, field) for one in kept) for field in ("documents", "failures", "skipped", "refused")
        }
        lines.append(f"{name}: " + ", ".join(f"{value:,} {field}" for field, value in sums.items() if value))
    return lines

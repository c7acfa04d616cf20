"""Planning over millions of documents, and writing a mixture of a billion stored tokens without copying one.

The run is planted (`planted_corpus.py`): real rows under new identifiers, in the form that a run leaves on disk. Every
planning is a process of its own, from the files to the finished plan; the files are in the page cache. Peers do a
plan's arithmetic on the same files: one DuckDB query on two threads, and pandas (on a tenth, which it can hold).

Invariant: what is written is compared with what was planned, index by index, and shares with what was asked.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpora import FOLDER
from benchmarks.planted_corpus import PlantedRun, RealRows, plant_run, read_rows
from benchmarks.table import ROOT, Row, publish
from storage.megatron import IndexedReader, idx_path

SOURCES = """sources:
  - {name: books, where: source = 'encyclopedia' AND language.label = 'en', weight: 3}
  - {name: chinese, where: language.label = 'zh', weight: 1}
  - {name: good_web, where: source = 'web' AND quality.bucket >= 12, weight: 0.2}
  - {name: web, where: source = 'web', weight: 0.2}
  - {name: teaching, where: source = 'teaching' OR rules.num_words < 100, weight: 2}
"""
HEAD = "format_version: 1\nname: planted\nseed: 7\npolicy: web_default\ntokenizer: {load: t}\nheldout: {share: 0.001}\n"
STAGES = """stages:
  - {name: long, tokens: %s}
  - {name: anneal, tokens: %s, sources: {books: {weight: 1}, good_web: {weight: 1}}}
  - {name: far, tokens: %s, sequence_length: 8192}
"""
REPEATED = SOURCES.replace(
    "where: source = 'web',", "where: source = 'web', repeat: {by: quality.bucket, factors: {0: 0.5, 10: 2, 11: 3}},"
)
LIMITED = SOURCES.replace("where: source = 'web',", "where: source = 'web', max_documents_per_host: 1000,")
TURNS = 5
SHARE_OF_TOKENS = 0.5


def main(arguments: list[str]) -> int:
    """Measure, print the table and write it to `benchmarks/results`."""
    options = argparse.ArgumentParser(prog="make bench-plan", description=__doc__)
    options.add_argument("--data", type=Path, default=FOLDER, help="the folder of real documents")
    options.add_argument("--documents", type=int, default=10_000_000)
    options.add_argument("--tokens", type=int, default=1_000_000_000, help="stored tokens of the mixture written")
    options.add_argument("--every", type=int, default=4, help="every so many real documents are taken as rows")
    options.add_argument("--scratch", type=Path, help="a folder with 3.5 GB free; what is planted there is used again")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_rows(chosen, chosen.scratch or Path(folder), read_rows(chosen.data, every=chosen.every)))
    publish("plan", rows, packages=("duckdb", "pyarrow", "numpy", "pandas"), notes=_notes(chosen))
    return 0


def _notes(chosen: argparse.Namespace) -> list[str]:
    return [
        f"{chosen.documents:,} documents in parts of 100,000; each figure is the least of {TURNS} processes",
        "100 million documents are not measured: the line through a tenth and all, carried on",
        "no token is copied: the mixture's folder holds indices, links and a map, and no `.bin` of its own",
        "the peers hold out nothing, count no duplicates and check nothing; pandas' figure is of a tenth",
    ]


def _rows(chosen: argparse.Namespace, scratch: Path, real: RealRows) -> Iterator[Row]:
    tenth = PlantedRun(folder=scratch / "tenth", documents=chosen.documents // 10)
    whole = PlantedRun(folder=scratch / "whole", documents=chosen.documents)
    sizes = {run.folder: plant_run(run, real) for run in (tenth, whole)}
    small, large = (_plain(run, scratch, sizes[run.folder]) for run in (tenth, whole))
    yield from _speed(large, small, chosen.documents, scratch, whole, sizes[whole.folder])
    yield from _peers(large, small, scratch, whole, tenth)
    yield from _others(scratch, whole, sizes[whole.folder])
    yield from _written(chosen, scratch, real)


def _plain(run: PlantedRun, scratch: Path, stored: int) -> dict[str, Any]:
    return _least("ours", run, _recipe(scratch, f"tokens: {int(SHARE_OF_TOKENS * stored)}\n{SOURCES}", run.folder.name))


def _recipe(scratch: Path, text: str, name: str) -> Path:
    path = scratch / f"{name}.yaml"
    path.write_text(HEAD + text)
    return path


def _least(way: str, run: PlantedRun, recipe: Path, target: str | None = None, *, turns: int = TURNS) -> dict[str, Any]:
    """The figures of several processes, the least of each."""
    command = [sys.executable, "-m", "benchmarks.speed._planning", way, str(run.folder), str(recipe)]
    command += [target] if target else []
    found = []
    for _ in range(turns):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    least = {name: min(each[name] for each in found) for name in found[0] if name.endswith(("seconds", "mb"))}
    return {**found[0], **least}


def _speed(
    large: dict[str, Any], small: dict[str, Any], documents: int, scratch: Path, run: PlantedRun, stored: int
) -> Iterator[Row]:
    said = f"{documents // 10**6} million documents"
    slope = (large["seconds"] - small["seconds"]) / 9
    memory = (large["peak_mb"] - small["peak_mb"]) / 9
    yield Row(what=f"plan over {said}", figure=large["seconds"], unit="s")
    yield Row(what="the same, CPU of both cores", figure=large["cpu_seconds"], unit="CPU s")
    yield Row(what="imports before it", figure=large["import_seconds"], unit="s")
    yield Row(what="peak memory of the process", figure=large["peak_mb"], unit="MB")
    yield Row(what=f"plan over {documents // 10**7} million documents", figure=small["seconds"], unit="s")
    yield Row(what="100 million documents, on paper", figure=small["seconds"] + 99 * slope, unit="s")
    yield Row(what="memory of 100 million, on paper", figure=small["peak_mb"] + 99 * memory, unit="MB")
    (plan,) = large["plans"]
    yield Row(what="furthest share from the one asked", figure=_furthest(plan), unit="%")


def _furthest(plan: dict[str, Any]) -> float:
    """Percent of the mixture: how far the share of any source is from what was asked."""
    off = [
        abs(source["tokens_given"] / plan["tokens_given"] - source["tokens_asked"] / plan["tokens_asked"])
        for source in plan["sources"]
    ]
    return 100 * float(max(off))


def _peers(
    large: dict[str, Any], small: dict[str, Any], scratch: Path, whole: PlantedRun, tenth: PlantedRun
) -> Iterator[Row]:
    for way, run, ours in (("duckdb", whole, large), ("pandas", tenth, small)):
        targets = {source["name"]: source["tokens_target"] for source in ours["plans"][0]["sources"]}
        peer = _least(way, run, scratch / f"{run.folder.name}.yaml", json.dumps(targets), turns=2)
        _check_peer(peer["given"], targets)
        what = f"plan over {run.documents // 10**6} million documents, CPU"
        yield Row(what=what, figure=ours["cpu_seconds"], unit="s", peer=way, peer_figure=peer["cpu_seconds"])
        yield Row(
            what=f"{what.removesuffix(', CPU')}, wall",
            figure=ours["seconds"],
            unit="s",
            peer=way,
            peer_figure=peer["seconds"],
        )
        yield Row(what="memory", figure=ours["peak_mb"], unit="MB", peer=way, peer_figure=peer["peak_mb"])


def _check_peer(given: dict[str, int], targets: dict[str, int]) -> None:
    for name, target in targets.items():
        assert abs(given[name] - target) < 1_000_000, f"the peer gives {given[name]} of {name}, not {target}"


def _others(scratch: Path, run: PlantedRun, stored: int) -> Iterator[Row]:
    tokens = int(SHARE_OF_TOKENS * stored)
    parts = tuple(int(tokens * share) for share in (0.8, 0.1, 0.1))
    for what, text in (
        ("three stages", SOURCES + STAGES % parts),
        ("factors by bucket", f"tokens: {tokens}\n{REPEATED}"),
        ("a limit on hosts", f"tokens: {tokens}\n{LIMITED}"),
    ):
        found = _least("ours", run, _recipe(scratch, text, "other"), turns=2)
        yield Row(what=f"plan with {what}", figure=found["seconds"], unit="s")


def _written(chosen: argparse.Namespace, scratch: Path, real: RealRows) -> Iterator[Row]:
    mean = float(np.mean([len(tokens) for tokens in real.tokens]))
    run = PlantedRun(folder=scratch / "stored", documents=int(1.2 * chosen.tokens / mean), stored=True, seed=2)
    plant_run(run, real)
    recipe = _recipe(scratch, re.sub(r", weight: [0-9.]+", "", SOURCES), "stored")
    found = []
    for turn in range(3):
        target = run.folder / f"mixture-{turn}"
        found.append(_least("ours", run, recipe, str(target), turns=1))
        size = _check_written(target, found[-1]["plans"][0])
    tokens = found[0]["plans"][0]["tokens_given"]
    said = f"a mixture of {tokens / 1e9:.2f} billion stored tokens"
    yield Row(what=f"{said}: written", figure=min(each["write_seconds"] for each in found), unit="s")
    yield Row(what=f"{said}: planned and written", figure=min(each["seconds"] for each in found), unit="s")
    yield Row(what="the same, size of the folder", figure=size / 1e6, unit="MB")


def _check_written(target: Path, plan: dict[str, Any]) -> int:
    """Compare the indices with the plan, source by source; returns the bytes that the folder holds itself."""
    blend = json.loads((target / "blend.json").read_bytes())
    for source in plan["sources"]:
        mine = [entry["prefix"] for entry in blend["train"] if entry["source"] == source["name"]]
        held = sum(IndexedReader(target / prefix).num_tokens for prefix in mine)
        assert held == source["tokens_given"], (
            f"{source['name']}: {held} in the index, {source['tokens_given']} planned"
        )
    own: Sequence[Path] = [path for path in target.rglob("*") if path.is_file() and not path.is_symlink()]
    assert all(idx_path(path.with_suffix("")).exists() for path in own if path.suffix == ".idx")
    assert not [path for path in own if path.suffix == ".bin"], "tokens were copied"
    return sum(path.stat().st_size for path in own)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The tasks from texts to candidates: sign, find copies, find documents that share a band.

What an earlier generation kept is read by columns: first the sorted keys, then the rest where a key is met again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.candidates import BANDS, find_candidates, scatter_bands
from pipelines.dedup.columns import identifier_halves, numbers
from pipelines.dedup.components import edges_of_copies
from pipelines.dedup.exact import COPIES, HASHES, group_copies, scatter_hashes
from pipelines.dedup.memory import keep_freed_memory
from pipelines.dedup.parameters import SignatureConfig
from pipelines.dedup.range_files import RangeFiles, read_columns, read_range
from pipelines.dedup.search.generations import Search, dedup_config
from pipelines.dedup.shuffle import RANGE, groups_of, with_ranges
from pipelines.dedup.signatures import make_signer, signature_stage, signatures_schema
from pipelines.dedup.urls import scatter_urls
from storage.identity import fingerprint
from storage.stage import BatchFunction

Hashes = npt.NDArray[np.uint64]
Arguments = dict[str, Any]
Counts = dict[str, Any]

BATCHES_ON_GPU = 16
"""16,384 texts, 40 MB: some milliseconds of work in each of its 700 steps together, where starting them takes 3."""


def signature_files(root: Path, config: SignatureConfig, checksum: str) -> RangeFiles:
    """The signatures of one documents part: the same for every search with that configuration."""
    return RangeFiles(root, fingerprint({"stage": signature_stage(config).identity(), "part": checksum}))


def sign_part(arguments: Arguments) -> Counts:
    """SIGNATURES of one part: `texts`, `number`, `checksum`, `settings`, `root`; `device`, where it is no CPU."""
    keep_freed_memory()
    config = dedup_config(arguments["settings"]).signature
    files = signature_files(arguments["root"], config, arguments["checksum"])
    done = files.facts("signatures", 0)
    if not done:
        batches = arguments["texts"].batches(arguments["number"])
        done = _sign(files, config, batches, arguments.get("device", "cpu"))
    return {"documents": done["rows"], **done}


@lru_cache(maxsize=2)
def _signer(config: SignatureConfig, device: str) -> BatchFunction:
    return make_signer(config, device)


def _sign(files: RangeFiles, config: SignatureConfig, batches: Iterator[pa.RecordBatch], device: str) -> Counts:
    sign = _signer(config, device)
    batches = batches if device == "cpu" else _larger(batches)
    table = pa.Table.from_batches([sign(batch) for batch in batches], schema=signatures_schema(config))
    shingles = int(pc.sum(table["num_shingles"]).as_py() or 0)
    return dict(files.commit("signatures", 0, _one_range(table), shingles=shingles))


def _larger(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches in groups, as a GPU likes them."""
    while group := list(islice(batches, BATCHES_ON_GPU)):
        yield pa.concat_batches(group)


def _signatures(search: Search, checksum: str) -> pa.Table:
    files = signature_files(search.root, search.config.signature, checksum)
    return read_range(files.paths("signatures", [0]), 0)


def scatter_part_hashes(arguments: Arguments) -> Counts:
    search, number = arguments["search"], arguments["number"]
    if done := search.files.facts("work/hashes", number):
        return dict(done)
    table = scatter_hashes(_signatures(search, arguments["checksum"]), number, search.now.ranges)
    return dict(search.files.commit("work/hashes", number, table))


def scatter_part_urls(arguments: Arguments) -> Counts:
    """The HASHES of one part's URLs."""
    search, number = arguments["search"], arguments["number"]
    if done := search.files.facts("work/url-hashes", number):
        return dict(done)
    table = scatter_urls(search.texts.urls(number), number, search.now.ranges)
    return dict(search.files.commit("work/url-hashes", number, table))


def group_range_copies(arguments: Arguments) -> Counts:
    """COPIES of one range of hashes, how they tie documents together, and the texts that are met first here."""
    return _group_range(arguments["search"], arguments["number"], kind="copies", hashes="hashes")


def group_range_urls(arguments: Arguments) -> Counts:
    """The same for URLs."""
    return _group_range(arguments["search"], arguments["number"], kind="urls", hashes="url-hashes")


def _group_range(search: Search, number: int, *, kind: str, hashes: str) -> Counts:
    files, nodes = search.files, search.now.nodes
    if done := files.facts(f"work/{kind}", number):
        return dict(done)
    fresh = read_range(files.paths(f"work/{hashes}", search.now.parts), number, HASHES)
    high, _ = identifier_halves(fresh.column("content_hash"))
    known = _known(search, f"kept/{hashes}", number, np.unique(high), HASHES)
    copies = group_copies(pa.concat_tables([*known, fresh]), search.fresh_from)
    first = fresh.filter(pc.invert(pc.is_in(fresh.column("place"), value_set=copies.column("place"))))
    keys = pa.array(identifier_halves(first.column("content_hash"))[0])
    files.commit(f"kept/{hashes}", number, _by_key(first.append_column("key", keys)))
    by_place = with_ranges(copies, groups_of(numbers(copies.column("place"), np.int64), nodes))
    files.commit(f"kept/{kind}", number, by_place)
    files.commit(f"kept/edges-{kind}", number, edges_of_copies(copies, nodes))
    return dict(files.commit(f"work/{kind}", number, copies))


def _by_key(table: pa.Table) -> pa.Table:
    """The rows in the order of their `key`, as one range."""
    order = np.argsort(numbers(table.column("key"), np.uint64))
    return _one_range(table.drop_columns(["range"]).take(pa.array(order)))


def _one_range(table: pa.Table) -> pa.Table:
    return table.add_column(0, RANGE, pa.array(np.zeros(len(table), np.uint32)))


def _known(search: Search, phase: str, number: int, wanted: Hashes, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows that earlier generations kept under the wanted keys, which ascend and lie in one range of now."""
    for generation in search.before:
        path = search.files_of(generation).path(phase, number * generation.ranges // search.now.ranges)
        keys = read_columns(path, 0, ["key"])
        rows = _rows_of_keys(numbers(keys.column("key"), np.uint64), wanted) if keys else np.empty(0, np.int64)
        if len(rows) and (found := read_columns(path, 0, schema.names[1:])):
            yield _one_range(found.take(pa.array(rows))).cast(schema)


def _rows_of_keys(keys: Hashes, wanted: Hashes) -> npt.NDArray[np.int64]:
    """int64[n]: the rows of `keys` that equal one of the wanted; both ascend."""
    starts, ends = np.searchsorted(keys, wanted, side="left"), np.searchsorted(keys, wanted, side="right")
    met = ends > starts
    starts, sizes = starts[met], (ends - starts)[met]
    return np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())


def scatter_part_bands(arguments: Arguments) -> Counts:
    keep_freed_memory()
    search, number = arguments["search"], arguments["number"]
    if done := search.files.facts("work/bands", number):
        return dict(done)
    copies = read_range(search.files.paths("work/copies", range(search.now.ranges)), number, COPIES)
    table = scatter_bands(_signatures(search, arguments["checksum"]), copies, number, search.now.ranges)
    return dict(search.files.commit("work/bands", number, table))


def find_range_candidates(arguments: Arguments) -> Counts:
    """CANDIDATES of one range of keys, each with a new document, and the CROWDS that a new document joined."""
    keep_freed_memory()
    search, number = arguments["search"], arguments["number"]
    files = search.files
    if done := files.facts("work/candidates", number):
        return dict(done)
    fresh = read_range(files.paths("work/bands", search.now.parts), number, BANDS)
    kept = _by_key(fresh)
    files.commit("kept/bands", number, kept)
    wanted = np.unique(numbers(kept.column("key"), np.uint64)) if search.before else np.empty(0, np.uint64)
    bands = pa.concat_tables([*_known(search, "kept/bands", number, wanted, BANDS), kept])
    candidates, crowds = find_candidates(bands, search.config, search.now.groups)
    files.commit("work/crowds", number, crowds)
    new = pc.greater_equal(candidates.column("b_place"), search.fresh_from)
    return dict(files.commit("work/candidates", number, candidates.filter(new)))

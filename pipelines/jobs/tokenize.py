"""The token store job: every kept document tokenized once per tokenizer, part by part.

A part whose rows are all stored is left alone; newly kept rows go to a supplementary part. New pairs are put together
into bins of about 4 GB before the manifest names them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.hosts import open_catalogue
from mixtures.middle import choose_orders
from mixtures.recipe import load_recipe
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.run_folder import RunFolder
from storage.identity import fingerprint
from storage.manifests import Manifest, align, find_manifest, open_dataset
from storage.parts import Part, part_from_json, part_to_json
from tokenizer.bins import pack_bin, plan_bins, remove_loose
from tokenizer.encode import Encoder
from tokenizer.middle import Orders
from tokenizer.store import list_store_parts, publish_store, rows_not_yet_stored, write_store_part
from tokenizer.vocabulary import read_vocabulary


def run(job: Job) -> dict[str, Any]:
    """Bring the store of one vocabulary up to what the policy keeps."""
    folder, tokenizer = RunFolder(job.run_folder), job.spec["tokenizer"]
    documents = open_dataset(folder.documents)
    verdicts = open_dataset(folder.decisions(job.spec["policy"]) / "verdicts")
    tasks = [
        PartTask(
            identity=fingerprint({"tokenizer": tokenizer, "part": ours.sha256, "verdicts": theirs.sha256}),
            arguments={
                "root": str(job.run_folder),
                "tokenizer": tokenizer,
                "policy": job.spec["policy"],
                "recipe": job.spec["recipe"],
                "part": part_to_json(ours),
                "verdicts": theirs.file,
            },
        )
        for ours, theirs in align(documents, verdicts)
    ]
    report = run_parts(job, tasks, tokenize_part, total=len(tasks), stage="tokenize")
    report.require_all()
    parts = [part_from_json(result["part"]) for result in report.results if result and result["part"]]
    manifest = _publish(job, folder.tokens(tokenizer), parts, {part.sha256 for part in documents.parts})
    return {
        "identity": manifest.identity,
        "tokenizer": tokenizer,
        "documents": manifest.rows,
        "tokens": manifest.facts["tokens"],
        "bytes": manifest.facts["bytes"],
    }


def _publish(job: Job, store: Path, parts: Sequence[Part], documents: Collection[str]) -> Manifest:
    """Put the new parts together into bins, name all of them in the manifest, and remove the pairs they came in."""
    earlier = find_manifest(store)
    published = {part.identity for part in earlier.parts} if earlier else set()
    groups = plan_bins(list_store_parts(store, parts, documents), published)
    packed = dict(pair for result in _pack(job, store, groups) for pair in result)
    vocabulary = read_vocabulary(RunFolder(job.run_folder).vocabulary(job.spec["tokenizer"])).vocabulary
    manifest = publish_store(store, vocabulary, parts, documents=documents, packed=packed)
    remove_loose(store, packed, published)
    return manifest


def _pack(job: Job, store: Path, groups: Sequence[Sequence[Part]]) -> Iterator[Iterator[tuple[str, Part]]]:
    """Of each group: the identities that its parts had, and the parts in their bin."""
    if not groups:
        return
    tasks = [
        PartTask(
            identity=fingerprint([part.identity for part in group]),
            arguments={"store": str(store), "parts": [part_to_json(part) for part in group]},
        )
        for group in groups
    ]
    report = run_parts(job, tasks, pack_parts, total=len(tasks), stage="tokenize")
    report.require_all()
    for group, result in zip(groups, report.results, strict=True):
        assert result is not None
        yield zip((part.identity for part in group), map(part_from_json, result["parts"]), strict=True)


def pack_parts(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write one bin."""
    packed = pack_bin(Path(arguments["store"]), [part_from_json(part) for part in arguments["parts"]])
    return {"parts": [part_to_json(part) for part in packed]}


def _orders(folder: RunFolder, recipe: str, part: Part, verdicts: pa.Table) -> Orders:
    """How each document of the part is rearranged, as the recipe's sources ask."""
    catalogue = open_catalogue(folder.catalogue)
    here = next(theirs for theirs in catalogue.parts if theirs.of == part.sha256)
    return choose_orders(load_recipe(recipe), catalogue.read(here), verdicts)


@lru_cache(maxsize=2)
def _encoder(folder: Path) -> Encoder:
    return Encoder(read_vocabulary(folder))


def tokenize_part(arguments: dict[str, Any]) -> dict[str, Any]:
    """Store the kept rows of one documents part that are not stored yet."""
    folder, part = RunFolder(Path(arguments["root"])), part_from_json(arguments["part"])
    store = folder.tokens(arguments["tokenizer"])
    verdicts = open_dataset(folder.decisions(arguments["policy"]) / "verdicts")
    here = next(theirs for theirs in verdicts.parts if theirs.of == part.sha256)
    kept = pc.equal(verdicts.read(here, ["verdict"])["verdict"], "kept").to_numpy()
    fresh = rows_not_yet_stored(store, part, np.flatnonzero(kept).astype(np.int64))
    if not len(fresh):
        return {"documents": 0, "part": None}
    batches = open_dataset(folder.documents).batches(part, ["doc_id", "text"])
    encoder = _encoder(folder.vocabulary(arguments["tokenizer"]))
    rearranged = encoder.vocabulary.fill_in_middle is not None
    orders = _orders(folder, arguments["recipe"], part, verdicts.read(here))[fresh] if rearranged else None
    written = write_store_part(store, encoder, documents=part, batches=batches, admitted=fresh, orders=orders)
    return {"documents": written.rows, "bytes": written.facts["bytes"], "part": part_to_json(written)}

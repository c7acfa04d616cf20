"""Bucket thresholds: fitted to the text that they rank, kept with the head, and not moved by what comes later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from classifiers.quality.buckets import BucketThresholds, assign_buckets
from classifiers.quality.head import FittedHead, HeadConfig, fit_head
from pipelines.jobs.score import find_thresholds, ranked_scores, thresholds_file
from pipelines.raw_inputs import bucket_sources_of
from pipelines.request import RunRequest, request_from_json
from pipelines.run_folder import RunFolder
from storage.errors import InputError
from storage.identity import fingerprint
from storage.manifests import Manifest, write_manifest
from storage.parts import Part, commit_table, find_part
from storage.schema import IDENTIFIER
from tests.classifiers.quality.samples import make_rows

WIDTH = 12


@dataclass(frozen=True)
class Crawl:
    """Documents of one source and part, good ones (a share) like the head's positives."""

    source: str
    number: int
    good: float
    seed: int


def write_run(root: Path, crawls: Sequence[Crawl]) -> RunFolder:
    """What scoring reads of a run: documents, measurements, embeddings."""
    folder = RunFolder(root)
    for place, kind in (
        (folder.documents, "documents"),
        (folder.measured, "measure"),
        (folder.embeddings, "embedding"),
        (folder.duplicates / "members", "members"),
    ):
        parts = [_write_part(place, kind, crawl) for crawl in crawls]
        write_manifest(place, Manifest(kind=kind, identity=fingerprint(kind), stage={}, parts=tuple(parts)))
    return folder


def _write_part(place: Path, kind: str, crawl: Crawl) -> Part:
    random = np.random.default_rng(crawl.seed)
    ids = pa.array([random.bytes(16) for _ in range(crawl.number)], IDENTIFIER)
    size = pa.array(random.integers(500, 2000, crawl.number), pa.int32())
    vectors = random.standard_normal((crawl.number, WIDTH))
    vectors[:, :2] += np.where(random.random(crawl.number) < crawl.good, 1, -1)[:, None]
    flat = pa.array(vectors.astype(np.float16).ravel())
    columns = {
        "documents": {"doc_id": ids, "content_hash": ids, "source": [crawl.source] * crawl.number},
        "measure": {"language": [{"label": "en"}] * crawl.number, "rules": _struct("num_bytes", size)},
        "members": {"doc_id": ids[:0], "cluster_id": ids[:0]},
        "embedding": {"embedding": _struct("vector", pa.FixedSizeListArray.from_arrays(flat, WIDTH))},
    }
    table = pa.table(columns[kind])
    identity = fingerprint([crawl.source, crawl.seed])
    of = None if kind == "documents" else _sha256_of_documents(place, identity)
    return commit_table(place, identity, table, schema=table.schema, of=of)


def _struct(name: str, values: pa.Array) -> pa.StructArray:
    return pa.StructArray.from_arrays([values], [name])


def _sha256_of_documents(place: Path, identity: str) -> str:
    part = find_part(RunFolder(place.parents[1]).documents, identity)
    assert part is not None
    return part.sha256


@pytest.fixture(scope="module")
def head() -> FittedHead:
    return fit_head(make_rows(200, width=WIDTH), HeadConfig(), encoder="test")


WEB = Crawl("web", 600, 0.2, seed=1)
WIKI = Crawl("encyclopedia", 3000, 0.9, seed=2)


def fit(folder: RunFolder, head: FittedHead, sources: Sequence[str]) -> BucketThresholds:
    path = folder.root / "head" / thresholds_file(sources)
    return find_thresholds(path, lambda: ranked_scores(folder, head, "clusters", sources))


def lowest_share(folder: RunFolder, head: FittedHead, thresholds: BucketThresholds) -> float:
    """The share of the web's bytes in bucket 0."""
    scores, sizes = ranked_scores(folder, head, "clusters", ["web"])
    return float(sizes[assign_buckets(scores, thresholds) == 0].sum() / sizes.sum())


def test_the_worst_bucket_of_the_web_is_a_twentieth_of_it_however_large_the_encyclopedia_is(
    tmp_path: Path, head: FittedHead
) -> None:
    alone, both = write_run(tmp_path / "alone", [WEB]), write_run(tmp_path / "both", [WEB, WIKI])
    thresholds = fit(both, head, ["web"])
    assert thresholds == fit(alone, head, ["web"]) and thresholds.sample_documents == 600
    assert lowest_share(both, head, thresholds) == pytest.approx(0.05, abs=0.01)
    assert lowest_share(both, head, fit(both, head, ["encyclopedia", "web"])) > 0.1


def test_a_later_crawl_is_put_into_the_buckets_and_does_not_move_them(tmp_path: Path, head: FittedHead) -> None:
    before = fit(write_run(tmp_path, [WEB]), head, ["web"])
    later = write_run(tmp_path, [WEB, Crawl("web", 600, 0.9, seed=3)])
    assert fit(later, head, ["web"]) == before
    (later.root / "head" / thresholds_file(["web"])).unlink()
    assert fit(later, head, ["web"]).values > before.values


def test_sources_without_scored_text_are_an_error(tmp_path: Path, head: FittedHead) -> None:
    with pytest.raises(InputError, match="no bucket thresholds"):
        fit(write_run(tmp_path, [WEB]), head, ["forum"])


def test_which_sources_set_the_buckets() -> None:
    inputs = {"web": ("a.warc", "crawl=b.warc"), "encyclopedia": ("w.xml",), "jsonl": ("forum=f.jsonl",)}
    assert bucket_sources_of(RunRequest(inputs=inputs)) == ["crawl", "forum", "web"]
    assert bucket_sources_of(RunRequest(inputs=inputs, labels="l.jsonl")) == ["crawl", "encyclopedia", "forum", "web"]
    chosen = request_from_json(RunRequest(inputs=inputs, bucket_sources=("forum",)).to_json())
    assert bucket_sources_of(chosen) == ["forum"] and chosen == RunRequest(inputs=inputs, bucket_sources=("forum",))
    assert bucket_sources_of(RunRequest(inputs={"encyclopedia": ("w.xml",)})) == ["encyclopedia"]
    with pytest.raises(InputError, match="by `books`, but no input is called so"):
        bucket_sources_of(RunRequest(inputs=inputs, bucket_sources=("books",)))

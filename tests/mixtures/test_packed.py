"""Packed mixtures: full sequences, every document where the pieces say, and Megatron cuts where we do."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mixtures.packed import pack_mixture
from storage.errors import DatasetError
from storage.lineage import pieces_path
from storage.megatron import IndexedReader
from tests.stored_run import StoredRun, make_stored_run, tokenizer
from tests.trainer.test_indices import megatron_dataset

LENGTH = 40
END = tokenizer().vocabulary.end_of_document


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return make_stored_run(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def packed(run: StoredRun) -> Path:
    target = run.folder.root.parent / "packed"
    pack_mixture(target, run.mixture, LENGTH)
    return target


def blend_of(folder: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads((folder / "blend.json").read_bytes())
    return found


def train(folder: Path) -> list[Path]:
    return [folder / str(entry["prefix"]) for entry in blend_of(folder)["train"]]


def documents(prefix: Path) -> Counter[bytes]:
    """Every document of a shard as often as it is taken: by its pieces where it is packed."""
    reader = IndexedReader(prefix)
    if not pieces_path(prefix).exists():
        return Counter(reader[i].tobytes() for i in range(len(reader)))
    often = Counter((reader.pointers // (LENGTH * reader.itemsize)).tolist())
    found: dict[int, list[np.ndarray]] = {}
    times: dict[int, int] = {}
    for row in sorted(pq.read_table(pieces_path(prefix)).to_pylist(), key=lambda row: row["first"]):
        piece = reader.read(row["sequence"], row["offset"], row["tokens"])
        found.setdefault(row["document"], []).append(piece)
        assert times.setdefault(row["document"], often[row["sequence"]]) == often[row["sequence"]]
    return Counter({np.concatenate(pieces).tobytes(): times[document] for document, pieces in found.items()})


def test_every_document_is_taken_as_often_as_before(run: StoredRun, packed: Path) -> None:
    before = [documents(prefix) for prefix in train(run.mixture)]
    assert [documents(prefix) for prefix in train(packed)] == before
    assert {count for counter in before for count in counter.values()} >= {1, 2}


def test_every_sequence_is_full(packed: Path) -> None:
    entries = blend_of(packed)["train"]
    for entry, prefix in zip(entries, train(packed), strict=True):
        reader = IndexedReader(prefix)
        assert set(reader.lengths.tolist()) == {LENGTH} and entry["tokens"] == reader.num_tokens
        assert reader.documents.tolist() == list(range(len(reader) + 1))


def test_the_report_counts_what_was_cut(run: StoredRun, packed: Path) -> None:
    report = json.loads((packed / "blend.json").read_bytes())["packing"]
    lengths = [len(text) // 2 for prefix in train(run.mixture) for text in documents(prefix)]
    assert report["documents"] == len(lengths) and report["tokens"] == sum(lengths)
    assert report["cut"] == sum(length > LENGTH for length in lengths) < report["cut_unpacked"]
    assert report["padding"] == report["sequences"] * LENGTH - sum(lengths) > 0


def test_held_out_shards_and_the_tokenizer_are_as_they_were(run: StoredRun, packed: Path) -> None:
    for entry in json.loads((packed / "blend.json").read_bytes())["heldout"].values():
        for prefix in entry["prefixes"]:
            assert documents(packed / prefix) == documents(run.mixture / prefix)
    assert (packed / "tokenizer.json").read_bytes() == (run.mixture / "tokenizer.json").read_bytes()
    assert not any(path.is_symlink() for path in packed.rglob("*"))


@pytest.mark.filterwarnings("ignore")
def test_megatrons_samples_are_the_packed_sequences(packed: Path, tmp_path: Path) -> None:
    for prefix in train(Path(shutil.copytree(packed, tmp_path / "packed")))[:2]:
        reader = IndexedReader(prefix)
        dataset = megatron_dataset(prefix, sequence_length=LENGTH, num_samples=len(reader), seed=3, eod=END)
        sequences = Counter(reader[i].tobytes() for i in range(len(reader)))
        samples = [dataset._query_document_sample_shuffle_indices(i)[0][:LENGTH] for i in range(len(dataset))]
        assert len(samples) >= len(reader) - 1
        assert set(sample.astype(reader.dtype).tobytes() for sample in samples) <= sequences.keys()


def test_the_trainer_opens_it(packed: Path) -> None:
    from trainer.data.mixture import open_mixture

    assert open_mixture(packed).train_tokens == blend_of(packed)["train_tokens"]


def test_the_same_mixture_gives_the_same_bytes(run: StoredRun, packed: Path, tmp_path: Path) -> None:
    pack_mixture(tmp_path / "again", run.mixture, LENGTH)
    ours, theirs = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (packed, tmp_path / "again")
    )
    assert ours == theirs and len(ours) > 10


def test_what_cannot_be_packed_is_refused(run: StoredRun, packed: Path, tmp_path: Path) -> None:
    for target, mixture, length, words in (
        (tmp_path / "a", packed, LENGTH, "packed already"),
        (tmp_path / "a", run.mixture, 1, "sequences of 1 tokens"),
        (tmp_path / "a", tmp_path, LENGTH, "no mixture here"),
        (packed, run.mixture, LENGTH, "something here already"),
    ):
        with pytest.raises(DatasetError, match=words):
            pack_mixture(target, mixture, length)
    assert not (tmp_path / "a").exists()

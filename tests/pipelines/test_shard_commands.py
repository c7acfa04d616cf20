"""`gristmill shards`: what a person sees of shards, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines.cli import cli
from pipelines.document_map import open_shard
from storage.errors import DatasetError, InputError
from storage.megatron import IndexedReader, bin_path, idx_path, write_index
from tests.stored_run import TEXTS, StoredRun, make_stored_run, tokenizer
from tokenizer.encode import Encoder
from tokenizer.training import TrainingConfig, train_tokenizer
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer, write_vocabulary


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return make_stored_run(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def mixture(run: StoredRun, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(run.mixture, tmp_path / "mixture"))


def gristmill(*arguments: object) -> str:
    result = CliRunner().invoke(cli, ["shards", *map(str, arguments)], catch_exceptions=False)
    return result.output


def train(folder: Path, source: str = "wiki") -> Path:
    return folder / "train" / f"{source}-0000"


def test_verify_counts_what_is_there(run: StoredRun) -> None:
    shown = gristmill("verify", run.store, run.mixture, bin_path(train(run.mixture)))
    reader = IndexedReader(train(run.mixture))
    assert f"29 documents, {run.corpus.tokens.manifest.facts['tokens']:,} tokens" in shown
    assert shown.count(f"{len(reader):,} documents, {reader.num_tokens:,} tokens") == 2
    assert "of them repeats" in shown


def test_packing_says_what_it_saved_and_verifies(run: StoredRun, tmp_path: Path) -> None:
    shown = gristmill("pack", tmp_path / "packed", run.mixture, "--sequence-length", 40)
    packing = json.loads((tmp_path / "packed" / "blend.json").read_bytes())["packing"]
    assert f"{packing['cut']:,} documents cut" in shown and f"{packing['cut_unpacked']:,} documents cut" in shown
    assert "train/wiki-0000" in gristmill("verify", tmp_path / "packed")
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "packed", check=True)
    pieces = tmp_path / "packed" / "train" / "wiki-0000.pieces.parquet"
    table = pq.read_table(pieces)
    pq.write_table(table.slice(1), pieces)
    with pytest.raises(DatasetError, match=r"pieces.parquet has sha256 .*\n.*documents have other lengths"):
        gristmill("verify", tmp_path / "packed")


class TestDamage:
    def test_a_vocabulary_that_does_not_match(self, run: StoredRun, tmp_path: Path) -> None:
        data = train_tokenizer([pa.array(list(TEXTS.values()))], TrainingConfig(size=300))
        write_vocabulary(tmp_path, TokenizerFile(data, describe_tokenizer(data)))
        with pytest.raises(DatasetError, match=r"it holds id \d+, the vocabulary has 300 entries"):
            gristmill("verify", train(run.mixture), "--tokenizer", tmp_path)

    def test_all_faults_of_a_mixture_at_once(self, mixture: Path) -> None:
        blend = json.loads((mixture / "blend.json").read_bytes())
        blend["train"][0]["tokens"] += 1
        (mixture / "blend.json").write_text(json.dumps(blend))
        wiki = train(mixture)
        data = bin_path(wiki).read_bytes()
        bin_path(wiki).unlink()
        bin_path(wiki).write_bytes(data[:40])
        with pytest.raises(DatasetError) as refused:
            gristmill("verify", mixture)
        assert "beyond the 40 bytes" in str(refused.value) and "`blend.json` says" in str(refused.value)

    def test_an_index_that_is_not_of_the_selection(self, mixture: Path) -> None:
        reader = IndexedReader(train(mixture))
        lengths = np.array(reader.lengths)
        order = np.argsort(lengths)[::-1]
        fields = {"dtype": reader.dtype, "documents": reader.documents}
        write_index(idx_path(train(mixture)), lengths=lengths[order], pointers=reader.pointers[order], **fields)
        with pytest.raises(DatasetError, match="other lengths than `selection.parquet` says"):
            gristmill("verify", mixture)

    def test_another_tokenizer_beside_the_shards(self, mixture: Path) -> None:
        path = mixture / "vocabulary.json"
        path.write_text(path.read_text().replace('"dtype": "uint16"', '"dtype": "int32"'))
        with pytest.raises(DatasetError, match="ids are uint16, `vocabulary.json` says int32"):
            gristmill("verify", mixture)


def test_inspect_shows_any_range(run: StoredRun) -> None:
    reader = IndexedReader(train(run.mixture))
    decode = Encoder(tokenizer(), fast=False).decode
    first = int(reader.lengths[0])
    shown = gristmill("inspect", train(run.mixture), "--from", first - 3, "--tokens", 8, "--ids")
    ends, begins = reader[0][-3:].tolist(), reader[1][:5].tolist()
    for ids in (ends, begins):
        assert repr(decode(ids)) in shown and " ".join(map(str, ids)) in shown
    assert "a link to" in shown and len(re.findall("^sequence", shown, re.MULTILINE)) == 2
    with pytest.raises(InputError, match="are not in this shard"):
        gristmill("inspect", train(run.mixture), "--from", reader.num_tokens)


def test_what_is_joined_and_cut_stands_alone(run: StoredRun, tmp_path: Path) -> None:
    prefixes = [train(run.mixture), train(run.mixture, "web")]
    gristmill("merge", tmp_path / "all", *prefixes)
    expected = [reader[i].tolist() for reader in map(IndexedReader, prefixes) for i in range(len(reader))]
    assert [IndexedReader(tmp_path / "all")[i].tolist() for i in range(len(expected))] == expected
    cut = gristmill("split", tmp_path / "piece", tmp_path / "all.idx", "--tokens", 150)
    pieces = [IndexedReader(path.with_suffix("")) for path in sorted(tmp_path.glob("piece-*.idx"))]
    assert [reader[i].tolist() for reader in pieces for i in range(len(reader))] == expected
    assert len(pieces) == cut.count("tokens in") > 2
    with pytest.raises(InputError, match="is there already"):
        gristmill("merge", tmp_path / "all", *prefixes)
    with pytest.raises(InputError, match="is there already"):
        gristmill("split", tmp_path / "piece", tmp_path / "all", "--tokens", 300)


def test_a_shard_reads_back_as_a_dataset(run: StoredRun, tmp_path: Path) -> None:
    from datasets import Dataset

    gristmill("arrow", tmp_path / "shard.arrow", train(run.mixture), "--text")
    loaded = Dataset.from_file(str(tmp_path / "shard.arrow"))
    shard = open_shard(train(run.mixture))
    assert len(loaded) == len(shard.reader)
    for i in (0, len(loaded) // 2, len(loaded) - 1):
        assert loaded[i]["tokens"] == shard.reader[i].tolist()
    for prefix in (train(run.mixture), train(run.mixture, "web"), next(run.store.glob("*.bin"))):
        gristmill("arrow", tmp_path / f"{prefix.stem}.arrow", prefix, "--text")
        rows = Dataset.from_file(str(tmp_path / f"{prefix.stem}.arrow"))
        assert {row["text"].removesuffix("<|endoftext|>") for row in rows} == {TEXTS[row["doc_id"]] for row in rows}
        assert all(row["text"] == TEXTS[row["doc_id"]] + "<|endoftext|>" for row in rows)
    gristmill("merge", tmp_path / "lone", train(run.mixture))
    gristmill("arrow", tmp_path / "ids.arrow", tmp_path / "lone")
    assert pa.ipc.open_stream(tmp_path / "ids.arrow").schema.names == ["sequence", "document", "tokens"]

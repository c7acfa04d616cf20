"""The document map: every token of every shard leads to its document, and the document back to it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from mixtures.packed import pack_mixture
from mixtures.select import write_compact_mixture
from pipelines.cli import cli
from pipelines.document_map import Shard, find_token, offsets_of, open_shard, tell_place
from pipelines.run_folder import RunFolder
from pipelines.story import find_documents, tell_story
from storage.errors import DatasetError, InputError
from storage.megatron import bin_path
from tests.mixtures.tiny_run import doc_id, name_of
from tests.stored_run import TEXTS, StoredRun, make_stored_run, tokenizer
from tokenizer.encode import Encoder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return make_stored_run(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def compact(run: StoredRun) -> Path:
    target = run.folder.root.parent / "exported"
    return write_compact_mixture(target, run.plan, run.recipe, run.corpus, vocabulary=run.vocabulary, shard_tokens=400)


def prefixes(folder: Path) -> list[Path]:
    return sorted(path.with_suffix("") for path in folder.rglob("*.idx"))


def texts_by_sequence(shard: Shard) -> list[str]:
    decode = Encoder(tokenizer(), fast=False).decode
    return [decode(shard.reader[i][:-1]) for i in range(len(shard.reader))]


def check_every_sequence(prefix: Path, run: RunFolder | None = None) -> int:
    """Ask for the first and the last token of every sequence; what is told must be the document that stands there."""
    shard, asked, passed = open_shard(prefix), 0, 0
    for sequence, text in enumerate(texts_by_sequence(shard)):
        last = asked + int(shard.reader.lengths[sequence]) - 1
        for offset in (asked, last):
            told = tell_place(shard, find_token(shard, offset), run)
            assert TEXTS[bytes.fromhex(told["document"]["doc_id"])] == text
            assert (told["token"]["sequence"], told["token"]["offset"]) == (sequence, offset)
            if run or shard.run:
                name = name_of(bytes.fromhex(told["document"]["doc_id"]))
                assert told["document"]["url"] == f"https://example.org/{name}"
                assert told["document"]["record"]["file"] == "file" and told["verdict"]["verdict"] == "kept"
        passed = max(passed, told.get("mixture", {}).get("pass", 1))
        asked = last + 1
    assert asked == shard.reader.num_tokens
    return passed


def test_every_token_of_a_mixture_leads_to_its_document(run: StoredRun) -> None:
    found = {prefix.name: check_every_sequence(prefix) for prefix in prefixes(run.mixture)}
    assert len(found) > 3 and max(found.values()) >= 2, "there are several shards, and repeats"


def test_every_token_of_the_store_leads_to_its_document(run: StoredRun) -> None:
    stored = [prefix for prefix in prefixes(run.store)]
    parts = {part.facts["part"] for part in run.corpus.tokens.parts}
    assert 1 < len(stored) < len(parts), "some bins hold several parts"
    for prefix in stored:
        check_every_sequence(prefix)


def test_exported_shards_lead_to_the_run_that_they_came_from(run: StoredRun, compact: Path) -> None:
    assert max(check_every_sequence(prefix, run.folder) for prefix in prefixes(compact)) >= 2


def test_exported_shards_alone_know_the_document_and_its_text(compact: Path) -> None:
    prefix = prefixes(compact)[0]
    check_every_sequence(prefix)
    told = tell_place(open_shard(prefix), find_token(open_shard(prefix), 3))
    assert "verdict" not in told and "stored" not in told and told["mixture"]["pass"] == 1


def test_a_place_may_be_named_by_byte_and_by_sequence(run: StoredRun) -> None:
    shard = open_shard(bin_path(prefixes(run.mixture / "train")[0]))
    token = find_token(shard, 30)
    byte = tell_place(shard, token)["token"]["byte"]
    assert find_token(shard, byte, "byte") == find_token(shard, byte + 1, "byte") == token
    assert find_token(shard, token.sequence, "sequence").offset == token.offset - token.token


def test_the_text_around_the_token_is_shown(run: StoredRun) -> None:
    shard = open_shard(prefixes(run.store)[0])
    ids = shard.reader[1]
    told = tell_place(shard, find_token(shard, int(shard.reader.lengths[0]) + 4))["text"]
    decode = Encoder(tokenizer(), fast=False).decode
    assert told["before"] == decode(ids[:4]) and told["here"] == decode(ids[4:5])
    assert decode(ids[5:]).startswith(told["after"][:20])


def test_why_tells_where_the_document_stands(run: StoredRun) -> None:
    (found,) = find_documents(run.folder, "https://example.org/wiki03")
    (taken,) = tell_story(run.folder, found)["mixtures"]
    shard = open_shard(run.mixture / taken["prefix"])
    assert len(taken["offsets"]) == taken["repeats"]
    for number, offset in enumerate(taken["offsets"], 1):
        told = tell_place(shard, find_token(shard, offset))
        assert told["document"]["doc_id"] == doc_id("wiki03").hex()
        assert told["token"]["in_sequence"] == 0
        assert (told["mixture"]["pass"], told["mixture"]["repeats"]) == (number, taken["repeats"])
    (stored,) = tell_story(run.folder, found)["tokens"]
    assert offsets_of(open_shard(run.store / stored["bin"]).reader, stored["sequence"])


@pytest.mark.parametrize("by", ["token", "byte", "sequence"])
@pytest.mark.parametrize("offset", [-1, 10**9])
def test_a_place_outside_is_refused(run: StoredRun, by: str, offset: int) -> None:
    with pytest.raises(InputError, match="no such place in this shard"):
        find_token(open_shard(prefixes(run.mixture)[0]), offset, by)


def test_a_shard_of_no_run_is_refused(run: StoredRun, compact: Path, tmp_path: Path) -> None:
    lone = tmp_path / "a" / "b" / "c" / "lone"
    lone.parent.mkdir(parents=True)
    for suffix in (".bin", ".idx"):
        lone.with_suffix(suffix).write_bytes(prefixes(compact)[0].with_suffix(suffix).read_bytes())
    with pytest.raises(DatasetError, match="of no run"):
        open_shard(lone)
    with pytest.raises(DatasetError, match="is missing"):
        open_shard(tmp_path / "none")
    (tmp_path / "a" / "b" / "blend.json").write_text("{}")
    with pytest.raises(DatasetError, match="was adopted"):
        open_shard(lone)


def test_a_run_that_changed_since_says_so(tmp_path: Path) -> None:
    run = make_stored_run(tmp_path)
    shard = open_shard(prefixes(run.mixture)[0])
    token = find_token(shard, 0)
    (run.folder.documents / "manifest.json").rename(tmp_path / "away")
    assert "url" not in tell_place(shard, token)["document"]
    manifest = json.loads((tmp_path / "away").read_bytes())
    (run.folder.documents / "manifest.json").write_text(json.dumps({**manifest, "parts": []}))
    with pytest.raises(DatasetError, match="does not hold the documents part"):
        tell_place(shard, token)


def test_the_command_prints_it(run: StoredRun) -> None:
    prefix = prefixes(run.mixture)[-1]
    shown = CliRunner().invoke(cli, ["where", str(prefix), "0"], catch_exceptions=False)
    assert shown.exit_code == 0 and "https://example.org/wiki" in shown.output and "of source wiki" in shown.output
    told = CliRunner().invoke(cli, ["where", str(prefix) + ".idx", "0", "--by", "sequence", "--json"])
    assert json.loads(told.output)["document"]["doc_id"] in shown.output


def test_every_token_of_a_packed_shard_leads_to_its_document_or_is_padding(run: StoredRun, tmp_path: Path) -> None:
    report = pack_mixture(tmp_path / "packed", run.mixture, 40)
    ids = {doc_id: Encoder(tokenizer(), fast=False).encode(pa.array([text])).ids for doc_id, text in TEXTS.items()}
    padding, seen = 0, dict.fromkeys(TEXTS, 0)
    for prefix in prefixes(tmp_path / "packed" / "train"):
        shard = open_shard(prefix)
        for sequence in range(0, len(shard.reader), 3):
            for offset in (0, 20, 39):
                told = tell_place(shard, find_token(shard, 40 * sequence + offset), run.folder)
                if told["document"] is None:
                    padding += 1
                    continue
                document = bytes.fromhex(told["document"]["doc_id"])
                seen[document] += 1
                assert told["token"]["id"] in [*ids[document], tokenizer().vocabulary.end_of_document]
    assert padding and report.padding and sum(map(bool, seen.values())) > 8

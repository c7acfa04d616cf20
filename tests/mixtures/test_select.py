"""The mixture folder: the index holds what the plan says, over the store's own tokens, and others can read it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from mixtures.corpus import Corpus, open_corpus
from mixtures.plan import MixturePlan, plan_mixture
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from mixtures.select import write_compact_mixture, write_mixture
from mixtures.yaml_files import load_yaml
from storage.commit import exclusive
from storage.errors import DatasetError, RecipeError
from storage.megatron import IndexedReader
from tests.mixtures.tiny_run import END, KEEP_ALL, Doc, Run, name_of
from tests.stored_run import make_stored_run

MakeRun = Callable[..., Run]
RecipeFrom = Callable[..., Recipe]

SOURCES = """\
  - {name: web, where: source = 'web', weight: 1}
  - {name: wiki, where: source = 'wiki', weight: 2}
"""
DOCS = [
    *(Doc(f"web{i:02d}", tokens=5 + i) for i in range(20)),
    *(Doc(f"wiki{i:02d}", source="wiki", tokens=20, text="é" * i) for i in range(9)),
]
NUMBERS = {doc.name: number for number, doc in enumerate(DOCS, 1)}


class Written:
    """A mixture folder and what it was made from."""

    def __init__(self, run: Run, recipe: Recipe, policy: Policy, target: str = "mixtures/m", **compact: int) -> None:
        self.run, self.recipe = run, recipe
        self.corpus = run.corpus(policy)
        self.plan = plan_mixture(recipe, self.corpus)
        write = write_compact_mixture if compact else write_mixture
        self.folder = write(run.root / target, self.plan, recipe, self.corpus, vocabulary=run.vocabulary(), **compact)
        self.blend = json.loads((self.folder / "blend.json").read_bytes())

    def taken(self, split: str) -> Counter[int]:
        """How often each document's number stands in the indices, after checking that it stands whole."""
        found: Counter[int] = Counter()
        entries = self.blend["train"] if split == "train" else self.blend["heldout"].values()
        for prefix in [p for entry in entries for p in entry.get("prefixes", [entry.get("prefix")])]:
            reader = IndexedReader(self.folder / prefix)
            assert reader.documents.tolist() == list(range(len(reader) + 1))
            for i in range(len(reader)):
                *body, last = reader[i].tolist()
                assert last == END and len(set(body)) == 1 and len(body) + 1 == DOCS[body[0] - 1].tokens
                found[body[0]] += 1
        return found


@pytest.fixture
def written(make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy) -> Written:
    return Written(make_run(DOCS, part_rows=7), recipe_from(SOURCES, "tokens: 700", "{share: 0.1}"), keep_all)


def tokens(counts: Counter[int]) -> int:
    return sum(DOCS[number - 1].tokens * times for number, times in counts.items())


def test_the_index_holds_what_the_plan_says(written: Written) -> None:
    train, heldout = written.taken("train"), written.taken("heldout")
    for source in written.plan.sources:
        mine = {NUMBERS[doc.name] for doc in DOCS if doc.source == source.name}
        of_train = Counter({number: times for number, times in train.items() if number in mine})
        of_heldout = Counter({number: times for number, times in heldout.items() if number in mine})
        assert tokens(of_train) == source.tokens_given
        assert len(of_train) == source.documents_given
        assert set(of_train.values()) <= {source.whole_epochs, source.whole_epochs + 1}
        assert (tokens(of_heldout), len(of_heldout)) == (source.heldout_tokens, source.heldout_documents)
    assert not train.keys() & heldout.keys()
    assert written.plan.sources[1].whole_epochs == 2
    assert tokens(train) == written.plan.tokens_given == written.blend["train_tokens"]


def test_the_blend_says_what_is_in_each_prefix(written: Written) -> None:
    blend = written.blend
    assert [entry["prefix"] for entry in blend["train"]] == [
        "train/web-0000", "train/web-0001", "train/web-0002", "train/wiki-0000", "train/wiki-0001", "train/wiki-0002",
    ]  # fmt: skip
    for entry in blend["train"]:
        assert entry["weight"] == entry["tokens"] == IndexedReader(written.folder / entry["prefix"]).num_tokens
    for source in written.plan.sources:
        assert blend["heldout"][source.name]["tokens"] == source.heldout_tokens
        assert blend["heldout"][source.name]["bytes"] == source.heldout_bytes
    assert blend["mixture"] == written.plan.identity()
    assert (blend["seed"], blend["sequence_length"]) == (1, 1024)
    assert (written.folder / "plan.json").read_text() == written.plan.to_json()


def test_the_selection_leads_from_each_document_to_its_tokens(written: Written) -> None:
    rows = pq.read_table(written.folder / "selection.parquet").to_pylist()
    counts = {"train": written.taken("train"), "heldout": written.taken("heldout")}
    assert len(rows) == sum(len(count) for count in counts.values())
    for row in rows:
        number = NUMBERS[name_of(row["doc_id"])]
        sequence = IndexedReader(written.folder / row["prefix"])[row["sequence"]]
        assert sequence[0] == number and len(sequence) == row["tokens"]
        assert counts[row["split"]][number] == row["repeats"]
        assert row["prefix"].startswith(f"{row['split']}/{row['source']}-")
        stored = IndexedReader(written.run.root / "tokens" / row["bin"])[row["bin_sequence"]]
        assert np.array_equal(stored, sequence)


def test_tokens_are_linked_and_the_run_may_move(written: Written, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "moved"
    before = written.taken("train")
    shutil.move(written.run.root, moved)
    written.folder = moved / "mixtures" / "m"
    assert written.taken("train") == before
    links = [path for path in written.folder.rglob("*.bin")]
    assert links and all(path.is_symlink() and not path.readlink().is_absolute() for path in links)


@pytest.mark.parametrize("forbidden", [["symlink"], ["symlink", "link"]])
def test_where_links_cannot_be_made_the_tokens_are_there_all_the_same(
    written: Written, keep_all: Policy, monkeypatch: pytest.MonkeyPatch, forbidden: list[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    for name in forbidden:
        monkeypatch.setattr(f"os.{name}", refuse)
    other = Written(written.run, written.recipe, keep_all, "mixtures/other")
    assert other.taken("train") == written.taken("train")
    assert not any(path.is_symlink() for path in other.folder.rglob("*"))


def test_a_compact_mixture_needs_no_store(written: Written, keep_all: Policy) -> None:
    compact = Written(written.run, written.recipe, keep_all, "mixtures/compact", shard_tokens=100)
    shutil.rmtree(written.run.root / "tokens")
    assert compact.taken("heldout") and compact.taken("train")
    for split in ("train", "heldout"):
        sizes = [path.stat().st_size // 2 for path in (compact.folder / split).glob("*.bin")]
        distinct = sum(DOCS[number - 1].tokens for number in compact.taken(split))
        assert sum(sizes) == distinct
        assert max(sizes) < 100 + 25
    assert len(compact.blend["train"]) > 2


def test_compact_and_linked_hold_the_same(written: Written, keep_all: Policy) -> None:
    compact = Written(written.run, written.recipe, keep_all, "mixtures/compact", shard_tokens=1 << 30)
    assert compact.taken("train") == written.taken("train")
    assert compact.taken("heldout") == written.taken("heldout")
    assert [entry["prefix"] for entry in compact.blend["train"]] == ["train/web-0000", "train/wiki-0000"]


def sequences(written: Written, open_reader: Callable[[str], Any]) -> Counter[tuple[str, bytes]]:
    """How often each source's training sequence comes, token for token, by any reader of Megatron's format."""
    found: Counter[tuple[str, bytes]] = Counter()
    for entry in written.blend["train"]:
        reader = open_reader(str(written.folder / entry["prefix"]))
        found.update((entry["source"], np.asarray(reader[i]).tobytes()) for i in range(len(reader)))
    return found


def test_others_read_of_compact_shards_what_the_indices_over_the_store_say(written: Written, keep_all: Policy) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    compact = Written(written.run, written.recipe, keep_all, "mixtures/compact", shard_tokens=90)
    expected = sequences(written, lambda prefix: IndexedReader(Path(prefix)))
    assert max(expected.values()) > 2 and sum(expected.values()) > len(expected) > 20
    assert sequences(compact, lambda prefix: indexed.IndexedDataset(prefix)) == expected
    assert sequences(compact, lambda prefix: IndexedReader(Path(prefix))) == expected


def test_the_same_input_gives_the_same_bytes(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy, tmp_path: Path
) -> None:
    found = []
    for name in ("one", "two"):
        run = make_run(DOCS, 7, tmp_path / name)
        folder = Written(run, recipe_from(SOURCES, "tokens: 700", "{share: 0.1}"), keep_all).folder
        found.append({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")})
    assert found[0] == found[1] and len(found[0]) > 15


def test_a_folder_appears_whole_or_not_at_all(written: Written) -> None:
    vocabulary = written.run.vocabulary()
    (vocabulary / "tokenizer.json").unlink()
    target = written.run.root / "mixtures" / "broken"
    with pytest.raises(FileNotFoundError):
        write_mixture(target, written.plan, written.recipe, written.corpus, vocabulary=vocabulary)
    assert [path.name for path in target.parent.iterdir()] == ["m"]


def test_a_folder_that_is_there_is_left_as_it_is(written: Written) -> None:
    marker = written.folder / "blend.json"
    before = marker.stat().st_mtime_ns
    write_mixture(written.folder, written.plan, written.recipe, written.corpus, vocabulary=written.run.vocabulary())
    assert marker.stat().st_mtime_ns == before


def test_a_plan_of_another_corpus_or_recipe_is_refused(
    written: Written, make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy, tmp_path: Path
) -> None:
    vocabulary = written.run.vocabulary()
    less = make_run(DOCS[:-1], 7, tmp_path / "less").corpus(keep_all)
    with pytest.raises(DatasetError, match="the plan gives"):
        write_mixture(tmp_path / "x", written.plan, written.recipe, less, vocabulary=vocabulary)
    other = recipe_from(SOURCES, "tokens: 800", "{share: 0.1}")
    with pytest.raises(DatasetError, match="another recipe"):
        write_mixture(tmp_path / "x", written.plan, other, written.corpus, vocabulary=vocabulary)
    assert not (tmp_path / "x").exists()


def test_more_shards_than_megatron_can_number_are_refused(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixtures.select.TOO_MANY_PREFIXES", 6)
    vocabulary, target = written.run.vocabulary(), written.run.root / "mixtures" / "large"
    with pytest.raises(DatasetError, match="would have 6 training shards; Megatron takes fewer than 6"):
        write_mixture(target, written.plan, written.recipe, written.corpus, vocabulary=vocabulary)
    assert not target.exists()


def test_a_damaged_store_is_found_before_anything_is_published(written: Written, tmp_path: Path) -> None:
    def refused(words: str, vocabulary: Path) -> None:
        with pytest.raises(DatasetError, match=words):
            write_mixture(tmp_path / "x", written.plan, written.recipe, written.corpus, vocabulary=vocabulary)
        assert not (tmp_path / "x").exists()

    refused("uint16 ids", written.run.vocabulary("int32"))
    stored = sorted((written.run.root / "tokens").glob("*.bin"))
    good = stored[0].read_bytes()
    stored[0].write_bytes(good[:-2])
    refused("beyond the", written.run.vocabulary())
    stored[0].write_bytes(good)
    indices = [path.with_suffix(".idx") for path in stored[:2]]
    indices[0].write_bytes(indices[1].read_bytes())
    refused("beyond the|is not what its map describes", written.run.vocabulary())


def test_megatron_reads_the_shards_and_builds_samples_from_them(written: Written) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    for entry in written.blend["train"]:
        prefix = written.folder / entry["prefix"]
        theirs, ours = indexed.IndexedDataset(str(prefix)), IndexedReader(prefix)
        assert len(theirs) == len(ours)
        assert all(np.array_equal(theirs[i], ours[i]) for i in range(len(ours)))
    prefix = written.folder / "train/wiki-0000"
    dataset = megatron_samples(prefix, indexed.IndexedDataset(str(prefix)), length=8)
    tokens_of = np.concatenate([dataset[i]["tokens"].numpy() for i in range(len(dataset))])
    known = {NUMBERS[doc.name] for doc in DOCS if doc.source == "wiki"} | {END}
    assert len(dataset) >= 10 and set(tokens_of.tolist()) <= known


def megatron_samples(prefix: Path, store: Any, length: int) -> Any:
    gpt = pytest.importorskip("megatron.core.datasets.gpt_dataset")
    split = pytest.importorskip("megatron.core.datasets.utils").Split.train
    config = gpt.GPTDatasetConfig(
        random_seed=1,
        sequence_length=length,
        blend=([str(prefix)], None),
        split="1",
        path_to_cache=str(prefix.parent / "cache"),
        tokenizer=SimpleNamespace(vocab_size=1000, eod=END, pad=999, unique_identifiers={"class": "none"}),
        reset_position_ids=True,
        reset_attention_mask=True,
        eod_mask_loss=True,
    )
    return gpt.GPTDataset(store, str(prefix), np.arange(len(store), dtype=np.int32), 10, split, config)


def test_the_trainer_opens_the_folder(written: Written) -> None:
    from trainer.data.mixture import open_mixture

    mixture = open_mixture(written.folder)
    assert mixture.train_tokens == written.plan.tokens_given
    assert set(mixture.heldout) == {"web", "wiki"}


def test_a_variant_has_other_weights_and_the_same_held_out_texts(written: Written) -> None:
    from mixtures.variant import write_variant
    from trainer.data.mixture import open_mixture

    whole, sources = open_mixture(written.folder), written.plan.sources
    apart = written.run.root / "apart"
    weights = {source.name: float(i + 1) for i, source in enumerate(sources)}
    variants = [{source.name: 1.0} for source in sources] + [weights]
    for i, asked in enumerate(variants):
        variant = open_mixture(write_variant(written.folder, asked, apart / str(i)))
        assert variant.train_tokens == sum(source.tokens_given for source in sources if source.name in asked)
        for name, weight in asked.items():
            shares = [shard.weight for shard in variant.train if shard.source == name]
            assert sum(shares) == pytest.approx(weight) and min(shares) > 0
        assert variant.heldout.keys() == whole.heldout.keys() and variant.identity != whole.identity
        for name in whole.heldout:
            ours, theirs = variant.heldout_readers(name), whole.heldout_readers(name)
            assert [reader.num_tokens for reader in ours] == [reader.num_tokens for reader in theirs]
    with pytest.raises(DatasetError, match="does not train on `books`"):
        write_variant(written.folder, {"books": 1.0}, apart / "none")


SIZES = st.lists(st.tuples(st.booleans(), st.integers(2, 60)), min_size=4, max_size=25)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sizes=SIZES, total=st.integers(1, 600), share=st.sampled_from([0, 0.05, 0.3]), rows=st.integers(9, 30))
def test_tokens_in_the_index_are_tokens_in_the_plan(
    sizes: list[tuple[bool, int]], total: int, share: float, rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("mix")
    docs = [Doc("w0"), Doc("w1"), Doc("k0", source="wiki"), Doc("k1", source="wiki")]
    docs += [Doc(f"d{i}", source="web" if web else "wiki", tokens=size) for i, (web, size) in enumerate(sizes)]
    try:
        plan, folder = _mix(root, docs, rows, total, share)
    except RecipeError as error:
        assert "none is left to train on" in str(error) and share == 0.3
        reject()
    entries = json.loads((folder / "blend.json").read_bytes())["train"]
    for source in plan.sources:
        mine = [entry["prefix"] for entry in entries if entry["source"] == source.name]
        assert sum(IndexedReader(folder / prefix).num_tokens for prefix in mine) == source.tokens_given
        longest = max(doc.tokens for doc in docs if doc.source == source.name)
        assert 0 <= source.tokens_given - source.tokens_target < longest


def _mix(root: Path, docs: list[Doc], rows: int, total: int, share: float) -> tuple[MixturePlan, Path]:
    head = f"format_version: 1\nname: m\nseed: 3\npolicy: p\ntokenizer: {{load: t}}\ntokens: {total}\n"
    (root / "r.yaml").write_text(f"{head}heldout: {{share: {share}}}\nsources:\n{SOURCES}")
    (root / "p.yaml").write_text(KEEP_ALL.lstrip())
    recipe, policy = load_yaml(root / "r.yaml", Recipe), load_yaml(root / "p.yaml", Policy)
    run = Run(root / "run", docs, rows)
    corpus = run.corpus(policy)
    plan = plan_mixture(recipe, corpus)
    return plan, write_mixture(root / "run" / "m", plan, recipe, corpus, vocabulary=run.vocabulary())


def test_a_store_in_several_parts_is_read_as_the_tokenizer_writes_it(
    make_run: MakeRun, recipe_from: RecipeFrom, keep_all: Policy
) -> None:
    from tokenizer.encode import Encoder
    from tokenizer.store import publish_store, rows_not_yet_stored, write_store_part
    from tokenizer.training import TrainingConfig, train_tokenizer
    from tokenizer.vocabulary import TokenizerFile, describe_tokenizer, write_vocabulary

    docs = [Doc(f"d{i}", text=f"The mill grinds grain number {i}.") for i in range(8)] + [Doc("empty", text="")]
    run = make_run(docs, part_rows=5)
    data = train_tokenizer([pa.array([doc.text for doc in docs])], TrainingConfig(size=300))
    tokenizer = TokenizerFile(data, describe_tokenizer(data))
    encoder, store = Encoder(tokenizer, fast=False), run.root / "real"
    write_vocabulary(run.root / "real-vocabulary", tokenizer)
    for admitted in (lambda rows: np.arange(0, rows, 2), np.arange):
        parts = []
        for part in run.documents.parts:
            fresh = rows_not_yet_stored(store, part, admitted(part.rows).astype(np.int64))
            batches = run.documents.batches(part, ["doc_id", "text"])
            parts.append(write_store_part(store, encoder, documents=part, batches=batches, admitted=fresh))
        publish_store(store, tokenizer.vocabulary, parts)
    corpus = open_corpus(run.root / "catalogue", run.judge(keep_all), store)
    recipe = recipe_from("  - {name: all, where: 'true'}\n", heldout="{tokens: 20}")
    plan = plan_mixture(recipe, corpus)
    folder = write_mixture(run.root / "m", plan, recipe, corpus, vocabulary=run.root / "real-vocabulary")
    rows = pq.read_table(folder / "selection.parquet").to_pylist()
    read = {}
    for row in rows:
        sequence = IndexedReader(folder / row["prefix"])[row["sequence"]]
        read[name_of(row["doc_id"])] = encoder.decode(sequence[:-1])
    assert read == {doc.name: doc.text for doc in docs if doc.text}
    assert isinstance(corpus, Corpus) and plan.sources[0].documents + plan.sources[0].heldout_documents == 8


def test_a_vocabulary_that_does_not_match_the_store_is_refused(tmp_path: Path) -> None:
    run = make_stored_run(tmp_path)
    other = run.folder.root / "vocabularies" / "other"
    other.mkdir()
    for name in ("vocabulary.json", "tokenizer.json"):
        text = (run.vocabulary / name).read_text()
        (other / name).write_text(text.replace('"sha256": "', '"sha256": "f'))
    for write in (write_mixture, write_compact_mixture):
        with pytest.raises(DatasetError, match=r"the token store was written with the tokenizer \w{12}…, not with f"):
            write(tmp_path / "x", run.plan, run.recipe, run.corpus, vocabulary=other)


def test_two_exports_to_one_path(written: Written, tmp_path: Path) -> None:
    asked = (tmp_path / "x", written.plan, written.recipe, written.corpus)
    with exclusive(tmp_path / "x"), pytest.raises(DatasetError, match="another process is writing to this path"):
        write_compact_mixture(*asked, vocabulary=written.run.vocabulary())
    assert not (tmp_path / "x").exists()
    write_compact_mixture(*asked, vocabulary=written.run.vocabulary())

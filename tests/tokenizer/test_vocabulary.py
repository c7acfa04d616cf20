"""Vocabularies: trained the same for any number of threads, loaded from anywhere, refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models

from storage.errors import CurationError, ModelError
from tokenizer.vocabulary import (
    KNOWN_ENDS,
    TokenizerFile,
    describe_tokenizer,
    load_tokenizer,
    read_vocabulary,
    write_vocabulary,
)


def foreign(*added: str, ordinary: tuple[str, ...] = ()) -> bytes:
    """A tokenizer of somebody else's with the given added tokens and ordinary entries."""
    entries = {token: number for number, token in enumerate((*ordinary, "a", "b"))}
    tokenizer = Tokenizer(models.BPE(vocab=entries, merges=[]))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in added])
    return tokenizer.to_str().encode()


class TestLoading:
    def test_a_file_and_its_folder_are_the_same(self, tmp_path: Path, trained: TokenizerFile) -> None:
        (tmp_path / "tokenizer.json").write_bytes(trained.data)
        assert load_tokenizer(tmp_path) == load_tokenizer(tmp_path / "tokenizer.json") == trained

    @pytest.mark.parametrize("token", KNOWN_ENDS)
    def test_known_ends_are_found(self, token: str) -> None:
        assert describe_tokenizer(foreign("<pad>", token)).end_of_document == 3

    def test_the_documents_end_comes_before_the_turns_end(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_bytes(foreign("<|im_end|>", "<|endoftext|>"))
        (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
        assert load_tokenizer(tmp_path).vocabulary.end_of_document == 3

    @pytest.mark.parametrize("eos", ['"<fin>"', '{"content": "<fin>"}'])
    def test_the_configured_end_is_used(self, tmp_path: Path, eos: str) -> None:
        (tmp_path / "tokenizer.json").write_bytes(foreign("<pad>", "<fin>"))
        (tmp_path / "tokenizer_config.json").write_text(f'{{"eos_token": {eos}}}')
        assert load_tokenizer(tmp_path).vocabulary.end_of_document == 3

    def test_a_named_end_wins_and_changes_the_hash(self) -> None:
        data = foreign("<|endoftext|>", "<|extra_204|>")
        default, named = describe_tokenizer(data), describe_tokenizer(data, named="<|extra_204|>")
        assert (default.end_of_document, named.end_of_document) == (2, 3)
        assert default.sha256 == named.sha256
        assert default.tokenizer_hash != named.tokenizer_hash

    def test_without_an_end_the_candidates_are_listed(self) -> None:
        with pytest.raises(CurationError) as caught:
            describe_tokenizer(foreign("<one>", "<two>"), at="here/tokenizer.json")
        assert str(caught.value) == (
            "the tokenizer has no known end-of-document token; its added tokens: `<one>`, `<two>`\n"
            "  at: here/tokenizer.json\n"
            "  hint: name the one that ends a document with the option `end_of_document`"
        )

    def test_an_ordinary_entry_ends_no_document(self) -> None:
        with pytest.raises(ModelError, match="no added token '<fin>'"):
            describe_tokenizer(foreign("<pad>", ordinary=("<fin>",)), named="<fin>")

    def test_size_counts_to_the_last_id(self) -> None:
        tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 300}, merges=[]))
        tokenizer.add_special_tokens(["<|endoftext|>"])
        settings = json.loads(tokenizer.to_str())
        vocabulary = describe_tokenizer(json.dumps(settings).encode())
        assert (vocabulary.size, vocabulary.padded_size) == (301, 384)

    def test_a_large_vocabulary_needs_four_bytes(self, wide: TokenizerFile) -> None:
        assert (wide.vocabulary.size, wide.vocabulary.padded_size, wide.vocabulary.dtype) == (70_000, 70_016, "int32")

    @pytest.mark.parametrize(
        "data", [b"", b"{}", b"\x80\x04\x95pickle", b'{"model": {"type": "Other"}}', b"[1, 2]", b"\xff\xfe"]
    )
    def test_what_is_no_tokenizer_is_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "tokenizer.json").write_bytes(data)
        with pytest.raises(ModelError, match="not a tokenizer") as caught:
            load_tokenizer(tmp_path)
        assert caught.value.at == str(tmp_path / "tokenizer.json")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="No such file") as caught:
            load_tokenizer(tmp_path / "model")
        assert caught.value.at == str(tmp_path / "model")


class TestVocabularyFolder:
    def test_it_comes_back_unchanged(self, tmp_path: Path, trained: TokenizerFile) -> None:
        write_vocabulary(tmp_path, trained)
        assert read_vocabulary(tmp_path) == trained
        assert json.loads((tmp_path / "vocabulary.json").read_text()) == {
            "format_version": 1,
            "size": trained.vocabulary.size,
            "padded_size": 640,
            "end_of_document": 0,
            "dtype": "uint16",
            "sha256": trained.vocabulary.sha256,
        }

    def test_another_tokenizer_beside_it_is_refused(self, tmp_path: Path, trained: TokenizerFile) -> None:
        write_vocabulary(tmp_path, trained)
        (tmp_path / "tokenizer.json").write_bytes(foreign("<|endoftext|>"))
        with pytest.raises(ModelError, match="was written for"):
            read_vocabulary(tmp_path)

    def test_another_format_is_refused(self, tmp_path: Path, trained: TokenizerFile) -> None:
        write_vocabulary(tmp_path, trained)
        values = json.loads((tmp_path / "vocabulary.json").read_text())
        (tmp_path / "vocabulary.json").write_text(json.dumps({**values, "format_version": 2}))
        with pytest.raises(ModelError, match="format_version 2; this Gristmill reads 1"):
            read_vocabulary(tmp_path)

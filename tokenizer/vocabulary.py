"""Vocabularies: load anybody's tokenizer, and say what a model must know of it.

A `tokenizer.json` is stored as the bytes it came in; `vocabulary.json` beside it holds its size, its end-of-document
id and its checksum, and a pair that does not match is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from storage.commit import write_atomically
from storage.errors import ModelError
from storage.identity import fingerprint
from storage.megatron import token_dtype
from tokenizer.foreign import foreign_files, is_foreign, read_foreign
from tokenizer.middle import FillInMiddle, find_tokens
from tokenizer.training import END_OF_DOCUMENT

TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_FILE = "vocabulary.json"
FORMAT_VERSION = 1
PADDING = 128
"""Embedding rows are padded to a multiple of this, as Megatron does (`--make-vocab-size-divisible-by`)."""

KNOWN_ENDS = (END_OF_DOCUMENT, "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>", "<|eos|>", "[EOS]")
"""Tokens that end a document: GPT-2, GPT-Neo and Qwen; LLaMA 3; DeepSeek; LLaMA 1 and 2; Gemma; others."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a model must know of a tokenizer. `sha256` is of its `tokenizer.json`; `dtype` is that of stored ids."""

    size: int
    padded_size: int
    end_of_document: int
    dtype: str
    sha256: str
    fill_in_middle: FillInMiddle | None = None

    @property
    def tokenizer_hash(self) -> str:
        """32 hex digits that key token stores: the same file with another end-of-document id is another tokenizer, and
        so is one whose documents are rearranged."""
        rearranged = {"fill_in_middle": self.fill_in_middle} if self.fill_in_middle else {}
        return fingerprint({"tokenizer": self.sha256, "end_of_document": self.end_of_document, **rearranged})

    @property
    def reserved(self) -> frozenset[int]:
        """Ids that no text becomes."""
        middle = self.fill_in_middle
        return frozenset((self.end_of_document, *((middle.begin, middle.hole, middle.end) if middle else ())))

    def facts(self) -> dict[str, Any]:
        """As JSON; what does not hold for it is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def vocabulary_of(facts: Mapping[str, Any]) -> Vocabulary:
    """The Vocabulary of such JSON. Raises TypeError where it is not one's."""
    middle = facts.get("fill_in_middle")
    return Vocabulary(**{**facts, "fill_in_middle": FillInMiddle(**middle) if middle else None})


@dataclass(frozen=True)
class TokenizerFile:
    """A `tokenizer.json`, byte for byte, and its description."""

    data: bytes
    vocabulary: Vocabulary


def load_tokenizer(path: Path, *, end_of_document: str | None = None, scheme: str | None = None) -> TokenizerFile:
    """Load a `tokenizer.json`, a tiktoken file, or the folder of a model as Hugging Face lays it out.

    `end_of_document` names the token that closes a document; without it the well-known ones are tried, then the
    `eos_token` of a `tokenizer_config.json` beside it. `scheme` says how a tokenizer without a `tokenizer.json` cuts
    text (`tokenizer.foreign`). Raises ModelError when there is no such file, when it is not a tokenizer, or when no
    token ends a document.
    """
    file = path / TOKENIZER_FILE if path.is_dir() else path
    data = _read(file) if file.is_file() and not is_foreign(file) else _read_foreign(path, file, scheme)
    suggested = _suggested_end(file.with_name("tokenizer_config.json"))
    return TokenizerFile(data, describe_tokenizer(data, at=str(file), named=end_of_document, suggested=suggested))


def tokenizer_files(path: Path) -> list[Path]:
    """The files that `load_tokenizer` reads for this path, as far as they are there."""
    file = path / TOKENIZER_FILE if path.is_dir() else path
    if file.is_file() and not is_foreign(file):
        return [found for found in (file, file.with_name("tokenizer_config.json")) if found.is_file()]
    return foreign_files(path) if is_foreign(path) else []


def _read_foreign(path: Path, file: Path, scheme: str | None) -> bytes:
    return read_foreign(path, scheme=scheme) if is_foreign(path) else _read(file)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModelError(
            f"there is no tokenizer to read: {error.strerror}",
            at=str(file),
            hint=f"give the path of a `{TOKENIZER_FILE}`, of a tiktoken file, or of a folder that holds a tokenizer",
        ) from error


def _suggested_end(config_file: Path) -> str | None:
    try:
        value = json.loads(config_file.read_bytes()).get("eos_token")
    except (OSError, ValueError, AttributeError):
        return None
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def describe_tokenizer(
    data: bytes, *, at: str | None = None, named: str | None = None, suggested: str | None = None
) -> Vocabulary:
    """The Vocabulary of a `tokenizer.json`. Raises ModelError as `load_tokenizer` does."""
    tokenizer = parse_tokenizer(data, at=at)
    added = {token.content: identifier for identifier, token in tokenizer.get_added_tokens_decoder().items()}
    size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if size == 0:
        raise ModelError("the tokenizer has no entries", at=at, hint="give one that has been trained")
    return Vocabulary(
        size=size,
        padded_size=-(-size // PADDING) * PADDING,
        end_of_document=added[_find_end(added, at, named, suggested)],
        dtype=np.dtype(token_dtype(size)).name,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def with_fill_in_middle(tokenizer: TokenizerFile, chosen: str, named: Sequence[str] | None = None) -> TokenizerFile:
    """The tokenizer of a store whose documents are rearranged. Raises ModelError where it lacks the tokens for that."""
    added = parse_tokenizer(tokenizer.data).get_added_tokens_decoder().items()
    begin, hole, end = find_tokens({token.content: identifier for identifier, token in added}, named)
    middle = FillInMiddle(begin=begin, hole=hole, end=end, chosen=chosen)
    return TokenizerFile(tokenizer.data, replace(tokenizer.vocabulary, fill_in_middle=middle))


def parse_tokenizer(data: bytes, *, at: str | None = None) -> Any:
    """The `tokenizers.Tokenizer` of these bytes. Raises ModelError when they are not one."""
    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises bare Exception
        raise ModelError(
            f"this is not a tokenizer: {str(error)[:200]}",
            at=at,
            hint=f"give a `{TOKENIZER_FILE}` of Hugging Face's tokenizers library; pickles and .model files are not",
        ) from error


def _find_end(added: dict[str, int], at: str | None, named: str | None, suggested: str | None) -> str:
    """The added token that closes a document: an ordinary entry would also appear inside documents."""
    wanted = (named,) if named is not None else (*KNOWN_ENDS[:3], suggested, *KNOWN_ENDS[3:])
    for token in wanted:
        if token is not None and token in added:
            return token
    shown = sorted(added, key=lambda token: added[token])[:12]
    candidates = ", ".join(f"`{token}`" for token in shown) + (", …" if len(added) > len(shown) else "")
    what = f"has no added token {named!r}" if named is not None else "has no known end-of-document token"
    raise ModelError(
        f"the tokenizer {what}; its added tokens: {candidates or 'none'}",
        at=at,
        hint="name the one that ends a document with the option `end_of_document`"
        if added
        else "add an end-of-document token to it; without one, documents cannot be told apart",
    )


def write_vocabulary(folder: Path, tokenizer: TokenizerFile) -> None:
    """Write `tokenizer.json` and then `vocabulary.json`."""
    write_atomically(folder / TOKENIZER_FILE, tokenizer.data)
    values = {"format_version": FORMAT_VERSION, **tokenizer.vocabulary.facts()}
    write_atomically(folder / VOCABULARY_FILE, (json.dumps(values, indent=1) + "\n").encode())


def read_vocabulary(folder: Path) -> TokenizerFile:
    """Read what `write_vocabulary` wrote. Raises ModelError when one is missing, of another format, or altered."""
    try:
        values = json.loads((folder / VOCABULARY_FILE).read_bytes())
        data = (folder / TOKENIZER_FILE).read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"there is no readable vocabulary here: {error}", at=str(folder), hint="run the tokenize stage again"
        ) from error
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ModelError(
            f"the vocabulary has format_version {version}; this Gristmill reads {FORMAT_VERSION}",
            at=str(folder / VOCABULARY_FILE),
            hint="use the Gristmill version that wrote it, or write it anew",
        )
    vocabulary = vocabulary_of(values)
    digest = hashlib.sha256(data).hexdigest()
    if digest != vocabulary.sha256:
        raise ModelError(
            f"`{TOKENIZER_FILE}` has sha256 {digest[:12]}…, but `{VOCABULARY_FILE}` was written for "
            f"{vocabulary.sha256[:12]}…",
            at=str(folder),
            hint="restore the tokenizer that the vocabulary was written for",
        )
    return TokenizerFile(data, vocabulary)

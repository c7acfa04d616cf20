"""Encoding: Arrow strings in, one flat array of token ids and its offsets out.

The ids are those of Hugging Face's `tokenizers`, always. Where `fastokens` is installed and gives the same ids on a
set of hard samples when the encoder opens, it does the work: 192 MB/s on one core against 3 (text and code,
32,768 entries). Text that spells a special token is encoded as text: nobody can close a document from inside it.
Threads: both libraries follow RAYON_NUM_THREADS and TOKENIZERS_PARALLELISM, which whoever starts the process sets.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tokenizer.samples import hard_samples
from tokenizer.vocabulary import TokenizerFile, Vocabulary, parse_tokenizer

BYTES_PER_CALL = 8 << 20
"""Text handed over at a time; Hugging Face's encodings take about 30 bytes of memory a byte of text."""

EncodeBatch = Callable[[list[str]], tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Token ids of several texts: those of text i are `ids[offsets[i]:offsets[i + 1]]`; uint32[T], int64[N + 1]."""

    ids: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]


class Encoder:
    """A tokenizer opened for work; open one a worker. `engine` says which library encodes."""

    def __init__(self, tokenizer: TokenizerFile, *, fast: bool = True) -> None:
        self.vocabulary: Vocabulary = tokenizer.vocabulary
        settings = _encoding_settings(tokenizer)
        self._tokenizer = parse_tokenizer(settings)
        self._tokenizer.encode_special_tokens = True
        self._encode: EncodeBatch = self._encode_reference
        self.engine = "tokenizers"
        if fast and (encode := _open_fastokens(settings, self._encode_reference, self._added_tokens())) is not None:
            self._encode, self.engine = encode, "fastokens"

    def encode(self, texts: pa.StringArray | pa.ChunkedArray) -> TokenBatch:
        """Token ids of every text, without end-of-document ids; null and empty texts have none."""
        encoded = [TokenBatch(*self._encode(group)) for group in _groups_by_size(texts)]
        return encoded[0] if len(encoded) == 1 else _join(encoded)

    def decode(self, ids: Sequence[int] | npt.NDArray[Any]) -> str:
        """The text of some ids, special tokens spelled out."""
        return str(self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False))

    def decode_batch(self, batch: Sequence[npt.NDArray[Any]]) -> list[str]:
        """The texts of several rows of ids, as `decode` gives them."""
        rows = [ids.tolist() for ids in batch]
        return list(map(str, self._tokenizer.decode_batch(rows, skip_special_tokens=False)))

    @property
    def added_ids(self) -> list[int]:
        """Ids of the added tokens, which texts never become."""
        return list(map(int, self._tokenizer.get_added_tokens_decoder()))

    def _encode_reference(self, texts: list[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        encodings = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        offsets = np.zeros(len(encodings) + 1, np.int64)
        np.cumsum([len(ids) for ids in encodings], out=offsets[1:])
        return np.fromiter(chain.from_iterable(encodings), np.uint32, count=int(offsets[-1])), offsets

    def _added_tokens(self) -> list[str]:
        return [token.content for token in self._tokenizer.get_added_tokens_decoder().values()]


def _join(batches: Sequence[TokenBatch]) -> TokenBatch:
    ids = [np.empty(0, np.uint32), *(batch.ids for batch in batches)]
    lengths = [np.zeros(1, np.int64), *(np.diff(batch.offsets) for batch in batches)]
    return TokenBatch(np.concatenate(ids), np.cumsum(np.concatenate(lengths)))


def _encoding_settings(tokenizer: TokenizerFile) -> bytes:
    """The `tokenizer.json` without truncation and padding, its reserved tokens marked special."""
    settings = json.loads(tokenizer.data)
    settings["truncation"] = settings["padding"] = None
    for token in settings.get("added_tokens", ()):
        if token["id"] in tokenizer.vocabulary.reserved:
            token["special"] = True
    return json.dumps(settings, ensure_ascii=False).encode()


def _groups_by_size(texts: pa.StringArray | pa.ChunkedArray) -> Iterator[list[str]]:
    """Cut the texts into lists of at most BYTES_PER_CALL and the rest of one longer text."""
    if len(texts) == 0:
        return
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
    group_of = (np.cumsum(sizes, dtype=np.int64) - 1) // BYTES_PER_CALL
    starts = [0, *(np.flatnonzero(np.diff(group_of)) + 1).tolist(), len(texts)]
    for start, stop in zip(starts, starts[1:], strict=False):
        yield [text or "" for text in texts.slice(start, stop - start).to_pylist()]


def _open_fastokens(settings: bytes, reference: EncodeBatch, added_tokens: list[str]) -> EncodeBatch | None:
    """`fastokens` as an EncodeBatch, or None when it is absent, refuses the tokenizer, or differs from `reference`."""
    try:
        tokenizer = importlib.import_module("fastokens").Tokenizer.from_json_str(settings.decode())
    except Exception:  # absent, or a tokenizer that it cannot read: the reference can
        return None

    def encode(texts: list[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        ids, offsets = tokenizer.encode_batch_flat(texts, add_special_tokens=False, split_special_tokens=True)
        return np.frombuffer(ids, np.uint32), np.frombuffer(offsets, np.uint64).astype(np.int64)

    samples = [*hard_samples(), *added_tokens, *(f"a {token}\n{token}b" for token in added_tokens)]
    try:
        (ids, offsets), (expected_ids, expected_offsets) = encode(samples), reference(samples)
    except Exception:  # whatever it raises on a hard sample, it is not exact on this tokenizer
        return None
    same = np.array_equal(ids, expected_ids) and np.array_equal(offsets, expected_offsets)
    return encode if same else None

"""Signatures: for each document a hash of its normalised text, its number of shingles and its band keys, row for row.

**Normalised** means: Unicode NFC, every run of white space one space, ends trimmed. Two documents are exact copies
when their normalised texts are equal byte for byte; letter case and punctuation count. Shingles are made of the same
text, so exact copies have the same signature.

A null text (a row that the gate leaves out) has no signature at all; a text without a word has a hash, but no band
keys, and is never a near-duplicate. 70,000 documents of 2.6 KB take about a second on one core.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.characters import character_tables
from pipelines.dedup.columns import band_array, identifier_array, read_only, string_buffers, whole
from pipelines.dedup.kernels import collapse_spaces, find_uncomposed, sign_texts
from pipelines.dedup.parameters import SignatureConfig
from storage.identity import DIGEST_BYTES
from storage.schema import IDENTIFIER
from storage.stage import BatchFunction, Stage

VERSION = 2
READS = ("doc_id", "text")
ROWS_AT_A_TIME = 4096

Hashes = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.uint32]


def signatures_schema(config: SignatureConfig) -> pa.Schema:
    """SIGNATURES: one row a document, in the documents' order."""
    return pa.schema(
        [
            pa.field("doc_id", IDENTIFIER, nullable=False),
            pa.field("content_hash", IDENTIFIER),
            pa.field("num_shingles", pa.uint32(), nullable=False),
            pa.field("bands", pa.list_(pa.uint64(), config.bands)),
        ]
    )


def signature_stage(config: SignatureConfig) -> Stage:
    """The measuring stage that writes SIGNATURES."""
    return Stage(
        name="signatures",
        version=VERSION,
        kind="measure",
        config=config,
        reads=READS,
        writes=signatures_schema(config),
        make=make_signer,
    )


def make_signer(config: SignatureConfig) -> BatchFunction:
    """The function that turns a batch with `doc_id` and `text` into SIGNATURES."""
    schema = signatures_schema(config)

    def sign(batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = _sign_texts(batch.column("text"), config)
        return pa.RecordBatch.from_arrays([batch.column("doc_id"), *columns], schema=schema)

    return sign


def sign_documents(documents: pa.Table, config: SignatureConfig) -> pa.Table:
    """SIGNATURES of a part; `documents` has `doc_id` and `text`."""
    sign = make_signer(config)
    batches = documents.select(list(READS)).to_batches(max_chunksize=ROWS_AT_A_TIME)
    return pa.Table.from_batches([sign(batch) for batch in batches], schema=signatures_schema(config))


def normalise(texts: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """(offsets int64[n+1], data uint8[]): NFC, runs of white space one space, ends trimmed; nulls have length 0."""
    offsets, data = string_buffers(compose(texts))
    offsets, data = collapse_spaces(offsets, data, character_tables().kinds)
    return read_only(offsets), read_only(data)


def compose(texts: pa.Array) -> pa.Array:
    """The texts in NFC; the array itself where they are already."""
    tables = character_tables()
    uncomposed = find_uncomposed(*string_buffers(texts), tables.kinds, tables.combining)
    if not uncomposed.any():
        return texts
    mask = pa.array(uncomposed)
    texts = texts.cast(pa.large_string())
    composed = [unicodedata.normalize("NFC", text) for text in texts.filter(mask).to_pylist()]
    return pc.replace_with_mask(texts, mask, pa.array(composed, pa.large_string()))


def _sign_texts(texts: pa.Array, config: SignatureConfig) -> tuple[pa.Array, pa.Array, pa.Array]:
    texts = whole(texts)
    tables = character_tables()
    multipliers, addends = permutations(config.seed, config.num_permutations)
    offsets, data = normalise(texts)
    by_word = config.unit == "words"
    num_shingles, keys = sign_texts(
        offsets, data, by_word, config.shingle_size, tables.kinds, tables.lower, multipliers, addends, config.bands
    )
    hashes = _hash_contents(offsets, data, texts.is_valid().to_pylist())
    return hashes, pa.array(num_shingles), band_array(keys, num_shingles > 0)


def _hash_contents(offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8], present: list[bool]) -> pa.Array:
    view, ends = memoryview(data), offsets.tolist()  # type: ignore[arg-type]  # numpy arrays are buffers
    digests: list[bytes | None] = [
        hashlib.blake2b(view[ends[i] : ends[i + 1]], digest_size=DIGEST_BYTES).digest() if here else None
        for i, here in enumerate(present)
    ]
    return identifier_array(digests)


@lru_cache(maxsize=8)
def permutations(seed: int, count: int) -> tuple[Codes, Codes]:
    """(multipliers, addends) uint32[count]: h -> (a * h + b) mod 2^32 with a odd, a permutation of the 32-bit hashes.

    Written by SplitMix64 from the seed, not by a library's generator, so that no release can change them.
    """
    values = (_split_mix(seed, 2 * count) >> np.uint64(32)).astype(np.uint32)
    multipliers, addends = values[:count] | np.uint32(1), values[count:].copy()
    multipliers.setflags(write=False)
    addends.setflags(write=False)
    return multipliers, addends


def _split_mix(seed: int, count: int) -> Hashes:
    """The first `count` outputs of SplitMix64 (Steele, Lea, Flood 2014)."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    values = steps + np.uint64(seed % (1 << 64))
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

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

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.characters import character_tables
from pipelines.dedup.columns import band_array, identifier_array, read_only, string_buffers, whole
from pipelines.dedup.hashing import permutations
from pipelines.dedup.kernels import collapse_spaces, find_uncomposed, sign_texts
from pipelines.dedup.parameters import SignatureConfig
from storage.identity import DIGEST_BYTES
from storage.schema import IDENTIFIER
from storage.stage import BatchFunction, Stage

VERSION = 2
READS = ("doc_id", "text")
ROWS_AT_A_TIME = 4096

Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
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


def make_signer(config: SignatureConfig, device: str = "cpu") -> BatchFunction:
    """The function that turns a batch with `doc_id` and `text` into SIGNATURES, the same to the bit on any device."""
    schema = signatures_schema(config)

    def sign(batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = _sign_texts(batch.column("text"), config, device)
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


def _sign_texts(texts: pa.Array, config: SignatureConfig, device: str) -> tuple[pa.Array, pa.Array, pa.Array]:
    texts = whole(texts)
    offsets, data = normalise(texts)
    sign = _sign_by_kernel if device == "cpu" else _sign_by_device
    num_shingles, keys = sign(device, offsets, data, config)
    hashes = _hash_contents(offsets, data, texts.is_valid().to_pylist())
    return hashes, pa.array(num_shingles), band_array(keys, num_shingles > 0)


def _sign_by_kernel(device: str, offsets: Integers, data: Bytes, config: SignatureConfig) -> tuple[Codes, Hashes]:
    tables, drawn = character_tables(), permutations(config.seed, config.num_permutations)
    by_word = config.unit == "words"
    return sign_texts(offsets, data, by_word, config.shingle_size, tables.kinds, tables.lower, *drawn, config.bands)


def _sign_by_device(device: str, offsets: Integers, data: Bytes, config: SignatureConfig) -> tuple[Codes, Hashes]:
    from pipelines.dedup.device import sign_texts_on

    drawn = permutations(config.seed, config.num_permutations)
    return sign_texts_on(device, offsets, data, config.unit == "words", config.shingle_size, *drawn, config.bands)


def _hash_contents(offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8], present: list[bool]) -> pa.Array:
    view, ends = memoryview(data), offsets.tolist()  # type: ignore[arg-type]  # numpy arrays are buffers
    digests: list[bytes | None] = [
        hashlib.blake2b(view[ends[i] : ends[i + 1]], digest_size=DIGEST_BYTES).digest() if here else None
        for i, here in enumerate(present)
    ]
    return identifier_array(digests)

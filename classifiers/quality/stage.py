"""The encoder as a measuring stage, and scores and buckets over its vectors.

Vectors are kept as an attribute, so a new head, new labels or new thresholds cost a multiplication and not an encoding:
half precision, 768 bytes a document at 384 dimensions, rounds at 2⁻¹² of an element, under what bfloat16 already costs.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.encoders.encoder import Encoder, EncoderConfig
from classifiers.encoders.models import DEFAULT_MODEL, find_model
from classifiers.quality.buckets import BucketThresholds, assign_buckets
from classifiers.quality.head import FittedHead
from storage.errors import DatasetError
from storage.stage import BatchFunction, Stage

QUALITY = pa.schema(
    [
        pa.field("score", pa.float64()),
        pa.field("bucket", pa.int8()),
        pa.field("fold", pa.int8()),
        pa.field("labelled", pa.bool_(), nullable=False),
    ]
)
"""`fold` is null for rows that no head was trained on; for the others `score` is out of fold."""


def embedding_schema(width: int) -> pa.Schema:
    """`vector` halffloat[width] of length 1 and `num_tokens`; both null where the text is (a gate kept it out)."""
    return pa.schema([pa.field("vector", pa.list_(pa.float16(), width)), pa.field("num_tokens", pa.int32())])


def embed_stage(config: EncoderConfig | None = None, *, model: str = DEFAULT_MODEL, gpus: float | None = None) -> Stage:
    """text → embedding{vector, num_tokens}, by any encoder (a folder, a hub name, the packaged MiniLM).

    The model's place is no part of the identity, its files' hashes are. `gpus`: what a worker asks for; None is one
    where this machine has CUDA. Raises ModelError where the model is none or unsafe.
    """
    files = find_model(model)
    config = config or EncoderConfig()
    return Stage(
        name="embedding",
        version=2,
        kind="measure",
        config=config,
        reads=("text",),
        writes=embedding_schema(files.width),
        make=partial(open_embedder, model=model),
        cpus=float(config.threads),
        gpus=_count_gpus() if gpus is None else gpus,
        packages=("torch", "transformers", "tokenizers"),
        files=tuple(str(path) for path in files.paths),
    )


def open_embedder(config: EncoderConfig, *, model: str = DEFAULT_MODEL) -> BatchFunction:
    """Open the encoder and return the stage's function."""
    encoder = Encoder(config, model)
    return partial(embed_batch, encoder)


def embed_batch(encoder: Encoder, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with the column `text` to `embedding_schema`, row for row."""
    texts = batch.column("text")
    embedded = encoder.embed(texts.drop_null())
    known = texts.is_valid()
    places = pa.array(np.cumsum(known.to_numpy(zero_copy_only=False)) - 1, mask=~known.to_numpy(zero_copy_only=False))
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(embedded.vectors.astype(np.float16).ravel(), pa.float16()), encoder.width
    )
    return pa.RecordBatch.from_arrays(
        [vectors.take(places), pa.array(embedded.num_tokens).take(places)], schema=embedding_schema(encoder.width)
    )


def vectors_of(column: pa.FixedSizeListArray | pa.ChunkedArray) -> npt.NDArray[np.float16]:
    """The `vector` column without nulls as float16[N, width]."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if array.null_count:
        raise ValueError("vectors has nulls; drop them first")
    flat: npt.NDArray[np.float16] = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), array.type.list_size)


def score(
    vectors: pa.FixedSizeListArray,
    groups: pa.FixedSizeBinaryArray,
    head: FittedHead | None,
    thresholds: BucketThresholds | None = None,
) -> pa.RecordBatch:
    """QUALITY rows for the `vector` column and the groups that the head was trained by (content hashes, or clusters').

    A null vector has no score; without a head (too few labels) no row has. Raises DatasetError for another width.
    """
    labelled = np.zeros(len(vectors), bool)
    scores = np.full(len(vectors), np.nan)
    folds = np.full(len(vectors), -1, np.int8)
    known = np.asarray(vectors.is_valid(), dtype=bool)
    if head is not None and known.any():
        _check_width(vectors.type.list_size, head)
        folds = np.where(known, head.folds(groups), -1).astype(np.int8)
        labelled = folds >= 0
        scores[known] = head.score(vectors_of(vectors.drop_null()), folds[known])
    unscored = np.isnan(scores)
    buckets = np.zeros(len(vectors), np.int8)
    if thresholds is not None:
        buckets[~unscored] = assign_buckets(scores[~unscored], thresholds)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(scores, mask=unscored),
            pa.array(buckets, mask=unscored | (thresholds is None)),
            pa.array(folds, mask=~labelled),
            pa.array(labelled),
        ],
        schema=QUALITY,
    )


def text_bytes(texts: pa.StringArray | pa.ChunkedArray) -> pa.Int64Array:
    """UTF-8 lengths, the weights of `fit_buckets`."""
    return pc.binary_length(texts).cast(pa.int64())


def _check_width(width: int, head: FittedHead) -> None:
    expected = head.lines.shape[1] - 1
    if width != expected:
        raise DatasetError(
            f"the embeddings have {width} dimensions, the quality head was trained on {expected}",
            at=head.identity,
            hint="score with the encoder of the head's card, or train a head on these embeddings",
        )


def _count_gpus() -> float:
    import torch

    return 1.0 if torch.cuda.is_available() else 0.0

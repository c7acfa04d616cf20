"""An encoder opened for work: texts in, unit vectors out, on a GPU where there is one, else on the CPU, same code.

BERT and RoBERTa run packed (see `packed.py`): documents end to end, about 1,024 tokens a pass on the CPU, 65,536 on a
GPU, each with its own attention. Others run as transformers has them: one document alone on the CPU, in batches padded
to the longest on a GPU. On the CPU a vector does not depend on a document's neighbours, on how the input was cut or on
the number of workers: not to a tolerance, but bit for bit on a type of processor.

On a GPU, as between bfloat16 and float32, elements of the unit vectors move by up to 0.005 and scores by up to 0.01
(bfloat16 against float32 over 900 documents: 0.0021 and 0.0075; as transformers computes it 0.0030 and 0.0125).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifiers.encoders.batches import Batches
from classifiers.encoders.devices import choose_device, choose_dtype, set_threads
from classifiers.encoders.forwards import Forward, PackedForward, PaddedForward
from classifiers.encoders.models import DEFAULT_MODEL, find_model
from classifiers.encoders.opening import open_model, refuse_missing
from classifiers.encoders.packed import pack_encoder
from classifiers.encoders.reading import tokenized_blocks
from classifiers.encoders.tokens import TextTokenizer, pack_rows
from storage.errors import ModelError, RecipeError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What can change a vector, beside the model's files.

    `max_tokens` counts special tokens. `dtype` is that of weights and activations; "auto" is bfloat16 where the
    processor multiplies it in hardware (AVX-512 BF16, AMX, CUDA), else float32. `pooling` "auto" follows the model's
    own pooling file, else means over tokens. `threads` are CPU threads of a worker. `batch_tokens` are the padded
    tokens of a batch, or the tokens of a pack; None is what suits the device.
    """

    max_tokens: int = 256
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    pooling: Literal["auto", "mean", "first"] = "auto"
    threads: int = 1
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_tokens", "threads", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"the encoder's {name} is {value}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """`vectors` float32[N, width], of length 1; `num_tokens` int32[N], what the model saw, special tokens counted."""

    vectors: npt.NDArray[np.float32]
    num_tokens: npt.NDArray[np.int32]


class Encoder:
    """A model, its tokenizer and a device; open one a worker.

    Raises ModelError for what is no model, is unsafe, or cannot take `max_tokens`.
    """

    def __init__(self, config: EncoderConfig, model: str = DEFAULT_MODEL) -> None:
        from transformers import AutoModel

        files = find_model(model)
        limit = files.max_tokens
        if limit is not None and config.max_tokens > limit:
            raise ModelError(
                f"max_tokens is {config.max_tokens}, but the model takes at most {limit}",
                at=str(files.folder),
                hint=f"set `max_tokens: {limit}`, or choose a model with a longer context",
            )
        self.config = config
        self.width = files.width
        self.device = choose_device()
        self.dtype = choose_dtype(config.dtype, self.device)
        set_threads(config.threads)
        self._tokenize = TextTokenizer(files, config.max_tokens)
        loaded, missing = open_model(AutoModel, files)
        # Task checkpoints have no pooler, and we do not read it.
        refuse_missing(files, missing, ignored=lambda name: name.startswith("pooler."))
        self._tokenize.check_vocabulary(loaded.get_input_embeddings().num_embeddings, files)
        first = config.pooling == "first" or (config.pooling == "auto" and files.pools_first_token)
        self._batches = Batches(self._open_forward(loaded, first), self.width, config.batch_tokens)

    def _open_forward(self, loaded: Any, first: bool) -> Forward:
        packed = pack_encoder(loaded, self.dtype, self.device)
        if packed is not None:
            return PackedForward(packed, self.device, _packed_first if first else _packed_mean)
        return PaddedForward(loaded.to(self.dtype), self.device, _padded_first if first else _padded_mean)

    def embed(self, texts: pa.StringArray) -> Embeddings:
        """Vectors of texts without nulls; memory is bounded whatever their number and length."""
        vectors = np.empty((len(texts), self.width), np.float32)
        num_tokens = np.empty(len(texts), np.int32)
        start = 0
        for rows in tokenized_blocks(self._tokenize, texts, device=self.device.type):
            block = slice(start, start + len(rows))
            num_tokens[block], vectors[block] = rows.lengths, self._batches(rows)
            start = block.stop
        return Embeddings(vectors, num_tokens)

    def embed_tokens(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Vectors float32[N, width] of token ids with their special tokens, at most `max_tokens` each."""
        return self._batches(pack_rows(rows))


def _normalize(pooled_BD: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(pooled_BD.float(), dim=1)


def _packed_first(states_TD: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return _normalize(states_TD[offsets[:-1]])


def _packed_mean(states_TD: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    import torch

    return _normalize(torch.segment_reduce(states_TD, "mean", offsets=offsets, axis=0))


def _padded_first(output: Any, mask_BT: torch.Tensor) -> torch.Tensor:
    return _normalize(output.last_hidden_state[:, 0])


def _padded_mean(output: Any, mask_BT: torch.Tensor) -> torch.Tensor:
    hidden_BTD = output.last_hidden_state.float()
    weights = mask_BT.unsqueeze(-1).to(hidden_BTD.dtype)
    return _normalize((hidden_BTD * weights).sum(1) / weights.sum(1).clamp(min=1))

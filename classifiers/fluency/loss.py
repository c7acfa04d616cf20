"""The mean token loss of each text under a causal language model, as CCI4.0 defines its fluency.

A text is the first `max_tokens` tokens of it, without special tokens; its loss is the mean of -ln p(token | those
before it) over all but the first. On the CPU each text goes through the model alone, so neither its neighbours nor the
cut of the input nor the number of workers can change a bit of its loss. On a GPU texts of like length share a batch,
padded on the right where causal attention never looks, so no mask is needed and the flash kernel runs; bfloat16 moves
a loss there by up to 0.02 (the written tolerance of `tests/gpu`).

Logits are made for a bounded number of tokens at a time: at 49,152 entries, all logits of a batch of 65,536 tokens
would be 13 GB. Text is cut before tokenization, and cut later when the cut turned out to be too early, so a document
of 50 MB costs what its first tokens cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.encoders.devices import choose_dtype, set_threads
from classifiers.encoders.forwards import plan_batches
from classifiers.fluency.models import open_causal_model
from storage.errors import RecipeError

if TYPE_CHECKING:
    import torch

CHARACTERS_PER_TOKEN = 8
MARGIN_TOKENS = 64
"""A cut in the middle of a word can change only the tokens at the end."""
CPU_LOGITS, GPU_LOGITS = 1 << 24, 1 << 29
"""Logits alive at once: 64 MB and 2 GB in float32."""
GPU_BATCH_TOKENS = 65_536
ROWS_AT_ONCE = 1024
PAD_TO = 64
"""Batches are padded to multiples of this on a GPU, so that few shapes are met."""
REASONS = ("too_short", "out_of_memory", "not_finite")
"""Why a text that was read has no loss. CCI4.0 writes 1e9 for all of them."""


@dataclass(frozen=True, kw_only=True)
class FluencyConfig:
    """What can change a loss, beside the model's files.

    `max_tokens` is lowered to what the model can take. `dtype` "auto" is bfloat16 where the processor multiplies it in
    hardware, else float32. `threads` are CPU threads of a worker. `batch_tokens` are the padded tokens of a batch; None
    is one text alone on the CPU, 65,536 tokens on a GPU.
    """

    max_tokens: int = 4096
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 1
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_tokens", "threads", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"fluency's {name} is {value}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class Losses:
    """`loss` float32[N] in nats a token, NaN where there is none; `num_tokens` int32[N]; `reason` by row, or None."""

    loss: npt.NDArray[np.float32]
    num_tokens: npt.NDArray[np.int32]
    reason: list[str | None]


class LossScorer:
    """A causal model and a device; open one a worker. Raises ModelError for what is no model or unsafe."""

    def __init__(self, config: FluencyConfig, model: str) -> None:
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = choose_dtype(config.dtype, self.device)
        set_threads(config.threads)
        self._model = open_causal_model(model, self.dtype, self.device)
        self.max_tokens = min(config.max_tokens, self._model.max_positions or config.max_tokens)
        on_gpu = self.device.type == "cuda"
        self._pad_to = PAD_TO if on_gpu else 1
        self._batch_tokens = config.batch_tokens or (GPU_BATCH_TOKENS if on_gpu else 1)
        self._chunk = max(1, (GPU_LOGITS if on_gpu else CPU_LOGITS) // self._model.weight.shape[0])
        self._token_losses: Any = _token_losses
        if on_gpu:
            self._model.compile_layers()
            self._token_losses = torch.compile(_token_losses, dynamic=True)

    def measure(self, texts: pa.StringArray) -> Losses:
        """Losses of texts without nulls; on a GPU the next texts are tokenized while these are scored."""
        blocks = (texts.slice(start, ROWS_AT_ONCE) for start in range(0, len(texts), ROWS_AT_ONCE))
        tokenized: Iterable[list[list[int]]] = map(self.tokenize, blocks)
        found = [self.measure_tokens(rows) for rows in (_ahead(tokenized) if self._pad_to > 1 else tokenized)]
        return Losses(
            np.concatenate([block.loss for block in found] or [np.empty(0, np.float32)]),
            np.concatenate([block.num_tokens for block in found] or [np.empty(0, np.int32)]),
            [reason for block in found for reason in block.reason],
        )

    def tokenize(self, texts: pa.StringArray) -> list[list[int]]:
        """The first `max_tokens` tokens of each text, as they would be in the tokens of the whole text."""
        limit = CHARACTERS_PER_TOKEN * self.max_tokens
        rows = self._encode(pc.utf8_slice_codeunits(texts, 0, limit))
        lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False)
        for i in np.flatnonzero(lengths > limit):
            cut = limit
            while cut < lengths[i] and len(rows[i]) < self.max_tokens + MARGIN_TOKENS:
                cut *= CHARACTERS_PER_TOKEN
                rows[i] = self._encode(pc.utf8_slice_codeunits(texts.slice(i, 1), 0, cut))[0]
        return [row[: self.max_tokens] for row in rows]

    def measure_tokens(self, rows: Sequence[Sequence[int]]) -> Losses:
        """Losses of token ids, at most `max_tokens` each."""
        import torch

        num_tokens = np.array([len(row) for row in rows], np.int32)
        reason: list[str | None] = [None if count > 1 else "too_short" for count in num_tokens]
        scored = np.flatnonzero(num_tokens > 1)
        loss = np.full(len(rows), np.nan, np.float32)
        queue = [
            [int(scored[i]) for i in batch] for batch in plan_batches(num_tokens[scored].tolist(), self._batch_tokens)
        ][::-1]
        waiting: list[tuple[list[int], torch.Tensor]] = []
        while queue:
            batch = queue.pop()
            try:
                waiting.append((batch, self._forward([rows[i] for i in batch])))
            except torch.OutOfMemoryError:
                queue += _halves(batch)
                if len(batch) == 1:
                    reason[batch[0]] = "out_of_memory"
                torch.cuda.empty_cache()
        for batch, means in waiting:  # read only now: the device never waits for the host
            loss[batch] = means.float().cpu().numpy()
        for i in scored[np.isinf(loss[scored]) | np.isnan(loss[scored])]:
            reason[i], loss[i] = reason[i] or "not_finite", np.nan
        return Losses(loss, num_tokens, reason)

    def _encode(self, texts: pa.StringArray) -> list[list[int]]:
        encodings = self._model.tokenizer.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _forward(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Mean losses [B], double, still on the device."""
        import torch

        batch = _pack(rows, self._pad_to)
        ids_BT, places_N, targets_N = (self._send(array) for array in batch)
        with torch.inference_mode():
            states_BTD = self._model.decode(ids_BT)
            states_ND = states_BTD.reshape(-1, states_BTD.shape[-1])
            losses_BT = torch.zeros(ids_BT.numel(), dtype=torch.float32, device=self.device)
            for start in range(0, len(places_N), self._chunk):
                here = places_N[start : start + self._chunk]
                wanted = targets_N[start : start + self._chunk]
                losses_BT[here] = self._token_losses(states_ND[here], self._model.weight, self._model.bias, wanted)
            sums_B = losses_BT.view(ids_BT.shape).double().sum(1)
            return sums_B / self._send(np.array([len(row) - 1 for row in rows], np.int64))

    def _send(self, array: npt.NDArray[np.int64]) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _token_losses(
    states_ND: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None, targets_N: torch.Tensor
) -> torch.Tensor:
    """-ln p of each target, float32."""
    import torch

    logits_NV = torch.nn.functional.linear(states_ND, weight_VD, bias_V).float()
    return torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="none")


def _pack(
    rows: Sequence[Sequence[int]], pad_to: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids [B, T] padded on the right, and of each token that has a next one its flat place and that next token."""
    longest = -(-max(len(row) for row in rows) // pad_to) * pad_to
    ids_BT = np.zeros((len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row)] = row
    lengths = np.array([len(row) for row in rows])
    has_next = np.arange(longest)[None, :] < lengths[:, None] - 1
    places = np.flatnonzero(has_next)
    return ids_BT, places, ids_BT.ravel()[places + 1]


def _halves(batch: list[int]) -> list[list[int]]:
    middle = len(batch) // 2
    return [batch[middle:], batch[:middle]] if middle else []


def _ahead(blocks: Iterable[list[list[int]]]) -> Iterator[list[list[int]]]:
    """The same blocks, each next one made in a thread while the caller uses this one."""
    source, end = iter(blocks), object()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, source, end)
        while (block := pending.result()) is not end:
            pending = pool.submit(next, source, end)
            yield block  # type: ignore[misc]  # `end` is no block

"""What attention keeps of tokens already read, so that going on costs one token and not all of them again.

A memory takes the place of a row's documents: `model.states(tokens, positions, memory)` reads tokens on from it, and
any kind of model whose layers go through `attention_mask` and `attend` does so without knowing. Rows may have read
different lengths: each key has its place in the row, −1 for filling, and a query sees the keys up to its own place.
Keys are kept as attention sees them, heads already apart: for latent attention (MLA) that is several times its latent,
the price of one mechanism for every kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

NOTHING = -1
GROWTH = 64


class Memory:
    """Keys and values a layer, and the places in their rows of the tokens that they are of."""

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._next_layer = 0
        self._masks: dict[tuple[torch.dtype, int | None], Tensor] = {}
        self._new = 0
        self.places_BS: Tensor | None = None

    @property
    def length(self) -> int:
        """Columns that are taken, filling among them."""
        return 0 if self.places_BS is None else self.places_BS.shape[1]

    def expect(self, places_BT: Tensor) -> None:
        """Say at which places of their rows the next tokens stand; −1 is filling that no token will see."""
        known = self.places_BS
        self.places_BS = places_BT if known is None else torch.cat([known, places_BT], dim=1)
        self._new, self._next_layer, self._masks = places_BT.shape[1], 0, {}

    def sight(self, dtype: torch.dtype, window: int | None) -> Sight:
        """What the expected tokens may see, `window` keys at most, their own among them; for `attend`."""
        return Sight(memory=self, dtype=dtype, window=window)

    def keep(self, keys_BGTK: Tensor, values_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of the next layer in turn, the new ones behind."""
        number, self._next_layer = self._next_layer, self._next_layer + 1
        if number == len(self._layers):
            self._layers.append((_room(keys_BGTK, self.length), _room(values_BGTK, self.length)))
        kept = []
        for buffer, new in zip(self._layers[number], (keys_BGTK, values_BGTK), strict=True):
            if buffer.shape[2] < self.length:
                buffer = torch.cat([buffer[:, :, : self.length - self._new], _room(new, self.length)], dim=2)
            buffer[:, :, self.length - self._new : self.length] = new
            kept.append(buffer)
        self._layers[number] = (kept[0], kept[1])
        return kept[0][:, :, : self.length], kept[1][:, :, : self.length]

    def mask(self, dtype: torch.dtype, window: int | None) -> Tensor:
        """Additive mask [B, 1, new, all]: 0 where a new token may look, else minus infinity.

        A token sees itself and the tokens at lower places; filling sees itself alone, so that no row is empty.
        """
        if (dtype, window) not in self._masks:
            assert self.places_BS is not None
            keys_B1S = self.places_BS.unsqueeze(1)
            queries_BT1 = self.places_BS[:, self.length - self._new :].unsqueeze(2)
            allowed = (keys_B1S < queries_BT1) & (keys_B1S != NOTHING)
            if window is not None:
                allowed &= keys_B1S > queries_BT1 - window
            allowed.diagonal(self.length - self._new, dim1=1, dim2=2).fill_(True)
            mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
            self._masks[dtype, window] = mask.masked_fill_(~allowed, float("-inf")).unsqueeze(1)
        return self._masks[dtype, window]

    def rows(self, numbers: Sequence[int]) -> Memory:
        """A memory of these rows in this order; one may be taken several times, to be gone on from differently.

        Columns that are filling in all of them go.
        """
        if self.places_BS is None or not numbers:
            return Memory()
        index = torch.tensor(list(numbers), device=self.places_BS.device)
        places = self.places_BS[index]
        columns = (places != NOTHING).any(dim=0).nonzero().squeeze(1)
        layers = [(keys[index][:, :, columns], values[index][:, :, columns]) for keys, values in self._layers]
        return _filled(places[:, columns], layers)

    def beside(self, other: Memory) -> Memory:
        """A memory of this one's rows and then the other's; the shorter ones are filled up in front."""
        if self.places_BS is None or other.places_BS is None:
            return other if self.places_BS is None else self
        length = max(self.length, other.length)
        places = [
            F.pad(it.places_BS, (length - it.length, 0), value=NOTHING)
            for it in (self, other)
            if it.places_BS is not None
        ]
        layers = []
        for ours, theirs in zip(self._layers, other._layers, strict=True):
            kept = [
                torch.cat(
                    [
                        F.pad(mine[:, :, : self.length], (0, 0, length - self.length, 0)),
                        F.pad(new[:, :, : other.length], (0, 0, length - other.length, 0)),
                    ]
                )
                for mine, new in zip(ours, theirs, strict=True)
            ]
            layers.append((kept[0], kept[1]))
        return _filled(torch.cat(places), layers)


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A memory as one layer's attention sees it."""

    memory: Memory = field(repr=False)
    dtype: torch.dtype
    window: int | None

    def look(self, keys_BGTK: Tensor, values_BGTK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Old and new keys and values, and the mask over them."""
        return *self.memory.keep(keys_BGTK, values_BGTK), self.memory.mask(self.dtype, self.window)


def _room(like_BGTK: Tensor, length: int) -> Tensor:
    """An empty buffer for `length` tokens and some to come."""
    batch, heads, _, size = like_BGTK.shape
    return like_BGTK.new_zeros(batch, heads, max(GROWTH, 2 * length), size)


def _filled(places_BS: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Memory:
    memory = Memory()
    memory.places_BS, memory._layers = places_BS, layers
    return memory

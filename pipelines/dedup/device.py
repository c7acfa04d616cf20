"""Signatures on a GPU: the arithmetic of `kernels.py` as whole-array steps in torch, so that every bit is the same.

A batch goes to the device once, as UTF-8; shingle counts and band keys come back. All is integers modulo 2^64 or
2^32, and torch wraps them as the kernels do; it has no unsigned shift and no unsigned minimum, so `_shift` masks the
sign's copies away, and addends are moved by 2^31, which makes signed order out of unsigned.

What a GPU does badly goes to the kernels: texts in bytes that are no UTF-8, words of more than 4 KB (their hash is a
chain of steps, one for eight bytes), and batches that do not fit its memory. That takes about 500 bytes for each byte
of a batch's text, bounded by `BATCH_BYTES`; a longer text is a batch alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipelines.dedup.characters import IGNORED, KIND_BITS, LONE, MARK, WORD, character_tables
from pipelines.dedup.hashing import MIX_1, MIX_2, SHINGLE_MULTIPLIER, TOKEN_MULTIPLIER, TOKEN_SEED

if TYPE_CHECKING:
    import torch

Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]

BATCH_BYTES = 32 << 20
LONGEST_WORD = 4096
"""Bytes of UTF-8 in a word that is still hashed on the device."""
TILE = 1 << 22
"""Shingles of documents of like length that are compared with one permutation at a time: 16 MB."""

_SIGN = 1 << 31


def sign_texts_on(
    device: str,
    offsets: Integers,
    data: Bytes,
    by_word: bool,
    size: int,
    multipliers: Codes,
    addends: Codes,
    num_bands: int,
) -> tuple[Codes, Hashes]:
    """What `sign_texts` returns: (distinct shingles uint32[n], band keys uint64[n, num_bands])."""
    counts = np.zeros(len(offsets) - 1, np.uint32)
    keys = np.zeros((len(offsets) - 1, num_bands), np.uint64)
    for first, last in _batches(offsets):
        bounds, batch = offsets[first : last + 1] - offsets[first], data[offsets[first] : offsets[last]]
        permutations = multipliers, addends, num_bands
        found = _sign_batch(device, bounds, batch, by_word, size, *permutations)
        if found is None:
            found = _sign_by_kernel(bounds, batch, by_word, size, *permutations)
        counts[first:last], keys[first:last] = found
    return counts, keys


def _sign_by_kernel(
    bounds: Integers, data: Bytes, by_word: bool, size: int, *permutations: Any
) -> tuple[Codes, Hashes]:
    from pipelines.dedup.kernels import sign_texts

    tables = character_tables()
    return sign_texts(bounds, data, by_word, size, tables.kinds, tables.lower, *permutations)


def _sign_batch(
    device: str, bounds: Integers, data: Bytes, by_word: bool, size: int, *permutations: Any
) -> tuple[Codes, Hashes] | None:
    """None for what the kernels must do, also where the device has no memory for it."""
    import torch

    try:
        tokens = _tokens(device, bounds, data, by_word) if len(data) else None
        return None if tokens is None else _sign(*tokens, size, *permutations)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def _batches(offsets: Integers) -> Iterator[tuple[int, int]]:
    """Texts first to last - 1 that together have at most BATCH_BYTES; a longer one alone."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + BATCH_BYTES, side="right")) - 1
        yield first, max(first + 1, last)
        first = max(first + 1, last)


def _tokens(device: str, bounds: Integers, data: Bytes, by_word: bool) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(tokens int64[T], their number in each text int64[n]); None where the kernels must do it."""
    if not _is_utf8(bounds, data):
        return None
    codes, texts = _code_points(device, bounds, data)
    kinds, lower = _tables(device)
    if by_word:
        words = _cut_words(codes, texts, kinds)
        tokens = _hash_words(lower[codes[words[0]]], words[1])
        return None if tokens is None else (tokens, _count(texts[words[0]][words[1]], len(bounds) - 1))
    return _mix(_extend(_start(len(codes), device), lower[codes])), _count(texts, len(bounds) - 1)


def _is_utf8(bounds: Integers, data: Bytes) -> bool:
    import pyarrow as pa

    texts = pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(data))
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


@lru_cache(maxsize=2)
def _tables(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(kinds uint8[0x110000], lower int64[0x110000]) on the device: 10 MB."""
    import torch

    tables = character_tables()
    kinds = torch.from_numpy(tables.kinds & KIND_BITS)
    return kinds.to(device), torch.from_numpy(tables.lower.astype(np.int64)).to(device)


def _code_points(device: str, bounds: Integers, data: Bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """(code points int64[C], the text of each int64[C]) of valid UTF-8."""
    import torch

    content = torch.from_numpy(np.concatenate([data, np.zeros(3, np.uint8)])).to(device)
    leads = torch.nonzero((content[:-3] & 0xC0) != 0x80).squeeze(1)
    first = content[leads].long()
    widths = 1 + (first >= 0xC0).long() + (first >= 0xE0).long() + (first >= 0xF0).long()
    codes = torch.where(widths == 1, first, first & (0x7F >> widths))
    for i in range(1, 4):
        codes = torch.where(widths > i, (codes << 6) | (content[leads + i].long() & 0x3F), codes)
    ends = torch.searchsorted(leads, torch.from_numpy(bounds.copy()).to(device))
    return codes, torch.repeat_interleave(ends.diff())


def _cut_words(codes: torch.Tensor, texts: torch.Tensor, kinds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(which characters stand in words int64[W], whether a word begins with each bool[W]).

    A mark belongs to the word before it, over ignored characters; without one it is nothing.
    """
    import torch

    at = torch.nonzero(kinds[codes] != IGNORED).squeeze(1)
    kind, text = kinds[codes[at]], texts[at]
    base = torch.cummax(torch.where(kind == MARK, -1, torch.arange(len(at), device=at.device)), 0).values.clamp(min=0)
    of = torch.where(text[base] == text, kind[base], 0)
    stands = (of == WORD) | (of == LONE)
    known = torch.nonzero(stands | (kind != MARK)).squeeze(1)
    at, kind, of, text, stands = at[known], kind[known], of[known], text[known], stands[known]
    follows = torch.zeros_like(stands)
    follows[1:] = stands[:-1] & (text[1:] == text[:-1])
    after_lone = torch.zeros_like(stands)
    after_lone[1:] = of[:-1] == LONE
    begins = (kind != MARK) & (~follows | (kind == LONE) | after_lone)
    return at[stands], begins[stands]


def _hash_words(codes: torch.Tensor, begins: torch.Tensor) -> torch.Tensor | None:
    """int64[words]: the hash of each word's UTF-8, eight bytes a step; None where a word is too long for it."""
    import torch

    word = begins.long().cumsum(0) - 1
    widths = 1 + (codes >= 0x80).long() + (codes >= 0x800).long() + (codes >= 0x10000).long()
    offsets = widths.cumsum(0) - widths
    starts = offsets[begins]
    lengths = torch.diff(starts, append=(offsets[-1:] + widths[-1:]))
    if len(lengths) and int(lengths.max()) > LONGEST_WORD:
        return None
    steps = lengths // 8 + 1
    bases = steps.cumsum(0) - steps
    places = 8 * bases[word] + offsets - starts[word]
    blocks = _write_utf8(codes, widths, places, int(steps.sum()))
    tokens = _start(len(starts), str(codes.device))
    for step in range(int(steps.max()) if len(steps) else 0):
        here = torch.nonzero(steps > step).squeeze(1)
        tokens[here] = _extend(tokens[here], blocks[bases[here] + step])
    return _mix(tokens)


def _write_utf8(codes: torch.Tensor, widths: torch.Tensor, places: torch.Tensor, num_blocks: int) -> torch.Tensor:
    """int64[num_blocks]: the characters' UTF-8 at their places, zero elsewhere, read as little-endian words."""
    import torch

    out = torch.zeros(8 * num_blocks, dtype=torch.uint8, device=codes.device)
    prefixes = torch.tensor([0, 0xC0, 0xE0, 0xF0], device=codes.device)
    out[places] = (prefixes[widths - 1] | (codes >> (6 * (widths - 1)))).to(torch.uint8)
    for i in range(1, 4):
        here = torch.nonzero(widths > i).squeeze(1)
        tails = codes[here] >> (6 * (widths[here] - 1 - i))
        out[places[here] + i] = (0x80 | (tails & 0x3F)).to(torch.uint8)
    return out.view(torch.int64)


def _sign(
    tokens: torch.Tensor, counts: torch.Tensor, size: int, multipliers: Codes, addends: Codes, num_bands: int
) -> tuple[Codes, Hashes]:
    """Distinct shingles and band keys of texts from their tokens."""
    import torch

    shingles, lengths = _hash_shingles(tokens, counts, size)
    found = torch.zeros(len(counts), dtype=torch.int64, device=tokens.device)
    keys = torch.zeros((len(counts), num_bands), dtype=torch.int64, device=tokens.device)
    starts = lengths.cumsum(0) - lengths
    for texts in _tiles(lengths.cpu().numpy()):
        chosen = torch.from_numpy(texts).to(tokens.device)
        longest = int(lengths[chosen[-1]])
        columns = torch.minimum(torch.arange(longest, device=tokens.device), lengths[chosen, None] - 1)
        tile = shingles[starts[chosen, None] + columns]
        found[chosen] = 1 + (tile.sort(dim=1).values.diff(dim=1) != 0).sum(1)
        keys[chosen] = _band_keys(_minima(tile, multipliers, addends), num_bands)
    return found.cpu().numpy().astype(np.uint32), keys.cpu().numpy().view(np.uint64)


def _hash_shingles(tokens: torch.Tensor, counts: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(shingles int64[S], how many each text has int64[n]): windows of `size` tokens, of all where they are fewer."""
    import torch

    lengths = torch.where(counts > 0, counts - counts.clamp(max=size) + 1, 0)
    text = torch.repeat_interleave(lengths)
    rank = torch.arange(len(text), device=tokens.device) - (lengths.cumsum(0) - lengths)[text]
    first, width = (counts.cumsum(0) - counts)[text] + rank, counts.clamp(max=size)[text]
    rolling = torch.zeros_like(first)
    for i in range(size):
        inside = width > i
        ahead = tokens[torch.where(inside, first + i, first)]
        rolling = torch.where(inside, rolling * _signed(int(SHINGLE_MULTIPLIER)) + ahead, rolling)
    powers = [_signed(width * pow(int(SHINGLE_MULTIPLIER), width, 1 << 64)) for width in range(size + 1)]
    hashes = _mix(torch.tensor(powers, device=tokens.device)[width] + rolling)
    return torch.where(hashes == 0, 1, hashes), lengths


def _tiles(lengths: Integers) -> Iterator[Integers]:
    """Texts that have shingles, shortest first, in tiles of at most TILE cells; the longest of a tile stands last."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    end = len(order)
    while end:
        first = max(0, end - max(1, TILE // int(lengths[order[end - 1]])))
        yield order[first:end]
        end = first


def _minima(tile: torch.Tensor, multipliers: Codes, addends: Codes) -> torch.Tensor:
    """int64[texts, permutations]: the least of multiplier x upper half + addend, mod 2^32, over each row's shingles."""
    import torch

    halves = (tile >> 32).to(torch.int32)
    minima = torch.empty((len(tile), len(multipliers)), dtype=torch.int32, device=tile.device)
    moved = torch.from_numpy((addends ^ np.uint32(_SIGN)).view(np.int32)).to(tile.device)
    values = torch.empty_like(halves)
    for p, multiplier in enumerate(multipliers.view(np.int32).tolist()):
        torch.add(moved[p], halves, alpha=multiplier, out=values)
        torch.amin(values, dim=1, out=minima[:, p])
    return minima.long() + _SIGN


def _band_keys(minima: torch.Tensor, num_bands: int) -> torch.Tensor:
    """int64[texts, bands]."""
    import torch

    rows = minima.view(len(minima), num_bands, -1)
    keys = _mix(torch.arange(1, num_bands + 1, device=minima.device)).expand(len(minima), -1)
    for row in range(rows.shape[2]):
        keys = _mix(keys ^ rows[:, :, row])
    return keys


def _count(texts: torch.Tensor, num_texts: int) -> torch.Tensor:
    import torch

    return torch.bincount(texts, minlength=num_texts)


def _start(count: int, device: str) -> torch.Tensor:
    import torch

    return torch.full((count,), _signed(int(TOKEN_SEED)), dtype=torch.int64, device=device)


def _extend(tokens: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    tokens = (tokens ^ blocks) * _signed(int(TOKEN_MULTIPLIER))
    return tokens ^ _shift(tokens, 32)


def _mix(values: torch.Tensor) -> torch.Tensor:
    values = (values ^ _shift(values, 30)) * _signed(int(MIX_1))
    values = (values ^ _shift(values, 27)) * _signed(int(MIX_2))
    return values ^ _shift(values, 31)


def _shift(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned shift to the right."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The signed integer of the same 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value

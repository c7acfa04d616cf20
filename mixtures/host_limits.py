"""Limits on hosts: of each host a source has so many documents at most, drawn by hash; the others are left.

What is drawn follows from seed and identifiers alone, in whatever parts and order the documents come, and by another
order than that of the epochs, so that large hosts do not stand first in these. 10 million documents take 3 s a core
and 30 bytes each, where a recipe asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixtures.corpus import Corpus, Counts, Keys, Mask, Rows
from mixtures.recipe import Recipe

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def available_rows(recipe: Recipe, corpus: Corpus, *, placed: bool = False) -> tuple[list[Rows], list[Rows]]:
    """What the sources have within their limits on hosts, and what these limits leave."""
    parts = corpus.rows(recipe, placed=placed)
    if all(source.max_documents_per_host is None for source in recipe.sources):
        return parts, []
    within = choose_within(parts, [source.max_documents_per_host for source in recipe.sources])
    return (
        [rows.take(chosen) for rows, chosen in zip(parts, within, strict=True)],
        [rows.take(~chosen) for rows, chosen in zip(parts, within, strict=True)],
    )


def choose_within(parts: Sequence[Rows], limits: Sequence[int | None]) -> list[Mask]:
    """bool[N] a part: the documents that are among their source's and host's first ones, or of no limited host."""
    most = np.array([0 if limit is None else limit for limit in limits], np.int64)
    limited = [most[rows.source] > 0 for rows in parts]
    hosted = [mask & (_host(rows) != 0) for mask, rows in zip(limited, parts, strict=True)]
    group, spread, limit = (
        np.concatenate([np.empty(0, dtype), *(column(rows)[mask] for rows, mask in zip(parts, hosted, strict=True))])
        for column, dtype in ((_group, np.uint64), (_spread, np.uint64), (lambda rows: most[rows.source], np.int64))
    )
    kept = np.ones(len(group), np.bool_)
    kept[_beyond(group, spread, limit)] = False
    starts = np.cumsum([0, *(int(mask.sum()) for mask in hosted)])
    chosen = []
    for i, mask in enumerate(hosted):
        within = np.ones(len(mask), np.bool_)
        within[mask] = kept[starts[i] : starts[i + 1]]
        chosen.append(within)
    return chosen


def _beyond(group: Keys, spread: Keys, limit: Counts) -> Counts:
    """The documents that come after the first `limit` of their group; only groups that have more are sorted."""
    _, number, count = np.unique(group, return_inverse=True, return_counts=True)
    crowded = np.flatnonzero(count[number] > limit)
    order = crowded[np.lexsort((spread[crowded], number[crowded]))]
    first = np.searchsorted(number[order], number[order], side="left")
    beyond: Counts = order[np.arange(len(order)) - first >= limit[order]]
    return beyond


def _host(rows: Rows) -> Keys:
    assert rows.host is not None, "a recipe that limits hosts reads them"
    return rows.host


def _spread(rows: Rows) -> Keys:
    assert rows.spread is not None, "a recipe that limits hosts reads them"
    return rows.spread


def _group(rows: Rows) -> Keys:
    """A number a source and host."""
    group: Keys = _host(rows) ^ (rows.source.astype(np.uint64) * _GOLDEN)
    return group

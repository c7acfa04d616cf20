"""A corpus whose store lacks some documents: their tokens are estimated, so that another policy can be planned.

The rate (tokens a byte) is that of the stored documents of the same source, or of all where it has none stored. A
document so estimated has no place in a bin, and a plan made of such documents is not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from mixtures.conditions import NOBODY, Conditions, Taken, evaluate_sources, with_decisions
from mixtures.corpus import COUNTED, DECIDED, Corpus, Mask, Rows, draw_keys, hash_hosts, order_keys
from mixtures.recipe import Recipe
from mixtures.withheld import without_withheld
from storage.errors import DatasetError
from storage.parts import Part


@dataclass(frozen=True)
class EstimatedCorpus(Corpus):
    """A Corpus that never lacks a document that was kept, only its exact number of tokens."""

    @cached_property
    def rates(self) -> Mapping[str, float]:
        """Tokens a byte of the stored documents by catalogue source, and of all of them under the empty name."""
        return self._measure_rates()

    def rows_of(
        self, recipe: Recipe, conditions: Conditions, part: Part, verdicts: Part, stored: list[Part], *, placed: bool
    ) -> list[Rows]:
        """Of a part those in the store, then those that are estimated."""
        decided = self.verdicts.read_paths(verdicts, DECIDED)
        catalogue = self.catalogue.read_paths(part, sorted({*conditions.paths, "source", "text_bytes"}))
        taken = evaluate_sources(recipe, conditions, with_decisions(catalogue, decided), kept_only=True)
        taken = without_withheld(recipe, taken, decided["doc_id"])
        there = self._is_stored(stored, catalogue.num_rows)
        known = replace(taken, source=np.where(there, taken.source, np.int32(NOBODY)))
        lacking = (taken.source != NOBODY) & ~there & (np.asarray(catalogue["text_bytes"]) > 0)
        return [
            self.join(part, stored, decided, known, recipe.seed, placed=placed),
            _estimate(catalogue, decided, taken, lacking, self.rates, recipe.seed),
        ]

    def _is_stored(self, stored: list[Part], num_rows: int) -> Mask:
        maps, empty = self.stored(stored, COUNTED)
        there = np.zeros(num_rows, np.bool_)
        there[np.asarray(maps["row"], np.int64)] = True
        there[empty] = True
        return there

    def _measure_rates(self) -> Mapping[str, float]:
        tokens: dict[str, int] = {}
        sizes: dict[str, int] = {}
        stored = self.stored_parts()
        for part in self.catalogue.parts:
            maps, _ = self.stored(stored.get(part.of or "", []), COUNTED)
            sources = self.catalogue.read(part, ["source"])["source"].take(maps["row"])
            table = pa.table({"source": sources, "tokens": maps["tokens"], "bytes": maps["bytes"]})
            for row in table.group_by("source").aggregate([("tokens", "sum"), ("bytes", "sum")]).to_pylist():
                for name in (row["source"], ""):
                    tokens[name] = tokens.get(name, 0) + row["tokens_sum"]
                    sizes[name] = sizes.get(name, 0) + row["bytes_sum"]
        if not sizes.get(""):
            raise DatasetError(
                "the token store holds no text, so no tokens can be estimated",
                at=str(self.tokens.folder),
                hint="run the tokenize stage first",
            )
        return {name: tokens[name] / size for name, size in sizes.items() if size}


def _estimate(
    catalogue: pa.Table, decided: pa.Table, taken: Taken, lacking: Mask, rates: Mapping[str, float], seed: int
) -> Rows:
    rows = np.flatnonzero(lacking)
    size = np.asarray(catalogue["text_bytes"], np.int64)[rows]
    names = catalogue["source"].take(pa.array(rows)).to_pylist()
    rate = np.array([rates.get(name, rates[""]) for name in names], np.float64)
    return Rows(
        source=taken.source[rows],
        order=order_keys(decided["doc_id"], taken.order, seed)[rows],
        cluster=draw_keys(decided["cluster_id"], "heldout", seed)[rows],
        grouped=(np.asarray(decided["cluster_size"]) > 1)[rows],
        tokens=np.maximum(1, np.rint(size * rate)).astype(np.int32),
        bytes=size.astype(np.int32),
        factor=None if taken.factor is None else taken.factor[rows],
        host=None if taken.host is None else hash_hosts(taken.host.take(pa.array(rows))),
        spread=None if taken.host is None else draw_keys(decided["doc_id"], "hosts", seed)[rows],
        estimated=True,
    )

"""A corpus whose store lacks some documents: their tokens are estimated, so that another policy can be planned.

The rate (tokens a byte) is that of the stored documents of the same source, or of all where it has none stored. A
document so estimated has no place in a bin, and a plan made of such documents is not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.corpus import Corpus, Counts, Rows, draw_keys, evaluate_sources, with_decisions
from mixtures.recipe import Recipe
from storage.errors import DatasetError
from storage.parts import Part

NOT_STORED = -1
"""The bin of a document that the store lacks."""


@dataclass(frozen=True)
class EstimatedCorpus(Corpus):
    """A Corpus that never lacks a document that was kept, only its exact number of tokens."""

    def rows(self, recipe: Recipe) -> list[Rows]:
        """The documents available to a recipe: of each part those in the store, then those that are estimated."""
        conditions, rates = self.bind(recipe), self._measure_rates()
        columns = sorted({*conditions.columns, "source", "text_bytes"})
        found = []
        for part, catalogue, verdicts in self.judged(columns):
            source = evaluate_sources(recipe, conditions, with_decisions(catalogue, verdicts), kept_only=True)
            stored = pa.array(self._is_stored(part, catalogue.num_rows))
            found.append(self.join(part, verdicts, pc.if_else(stored, source, None), recipe.seed))
            taken = pc.and_(pc.and_(source.is_valid(), pc.invert(stored)), pc.greater(catalogue["text_bytes"], 0))
            chosen = pc.indices_nonzero(taken)
            found.append(
                _estimate(catalogue.take(chosen), verdicts.take(chosen), source.take(chosen), rates, recipe.seed)
            )
        return found

    def _is_stored(self, part: Part, num_rows: int) -> npt.NDArray[np.bool_]:
        maps, empty = self.stored(part)
        stored = np.zeros(num_rows, np.bool_)
        stored[np.asarray(maps["row"], np.int64)] = True
        stored[empty] = True
        return stored

    def _measure_rates(self) -> Mapping[str, float]:
        """Tokens a byte of the stored documents by catalogue source, and of all of them under the empty name."""
        tokens: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for part in self.catalogue.parts:
            maps, _ = self.stored(part)
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


def _estimate(catalogue: pa.Table, verdicts: pa.Table, source: pa.Array, rates: Mapping[str, float], seed: int) -> Rows:
    size = np.asarray(catalogue["text_bytes"], np.int64)
    rate = np.array([rates.get(name, rates[""]) for name in catalogue["source"].to_pylist()], np.float64)
    nowhere: Counts = np.full(len(size), NOT_STORED, np.int64)
    return Rows(
        source=np.asarray(source, np.int32),
        order=draw_keys(verdicts["doc_id"], "train", seed),
        cluster=draw_keys(verdicts["cluster_id"], "heldout", seed),
        grouped=np.asarray(verdicts["cluster_size"]) > 1,
        tokens=np.maximum(1, np.rint(size * rate)).astype(np.int64),
        bytes=size,
        sequence=nowhere,
        pointer=nowhere,
        bin=nowhere.astype(np.int32),
        bins=(),
        doc_id=verdicts["doc_id"].combine_chunks(),
    )


def is_estimated(rows: Rows) -> npt.NDArray[np.bool_]:
    """bool[N]: whether a document's tokens are an estimate."""
    estimated: npt.NDArray[np.bool_] = rows.bin == NOT_STORED
    return estimated

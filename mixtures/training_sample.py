"""The sample that a tokenizer is trained on: which documents of a recipe, so that groups have the shares asked for.

Invariant: the sample is drawn by a hash of (seed, doc_id), so it depends on the documents alone, and one of twice the
bytes holds that of once. A group exceeds its share by less than one document; one that runs short leaves its rest to
nobody, so the sample is then smaller. Per taken document 40 bytes are held, and no text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.binding import TABLE, Binder
from mixtures.conditions import DECISION_NAMES, bind_sources, evaluate_sources, with_decisions
from mixtures.corpus import draw_keys, ensemble_of
from mixtures.ensemble import Ensemble, with_ensemble
from mixtures.names import names_of
from mixtures.recipe import Recipe, TrainTokenizer
from mixtures.sql import open_engine, reason
from storage.errors import SqlError
from storage.manifests import Dataset

PURPOSE = "vocabulary"
OTHERS = "other"
"""In a balance: every value that it does not name."""

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TrainingSample:
    """Rows of the documents' parts, in their order, and the bytes that each group gives."""

    part: Int64s
    row: Int64s
    group_bytes: dict[str, int]


def draw_training_sample(recipe: Recipe, catalogue: Dataset, verdicts: Dataset, most_bytes: int) -> TrainingSample:
    """At most about `most_bytes` of the texts that the recipe takes. Raises SqlError for a key that cannot be used."""
    weights = _weights(recipe)
    ensemble = ensemble_of(verdicts)
    columns: dict[str, list[npt.NDArray[np.generic]]] = {"group": [], "key": [], "bytes": [], "part": [], "row": []}
    for number, (ours, theirs) in enumerate(zip(catalogue.parts, verdicts.parts, strict=True)):
        rows = catalogue.read(ours)
        group = _groups(recipe, list(weights), with_decisions(rows, verdicts.read(theirs)), ensemble)
        taken = np.flatnonzero(group >= 0)
        columns["group"].append(group[taken])
        columns["key"].append(draw_keys(rows["doc_id"], PURPOSE, recipe.seed)[taken])
        columns["bytes"].append(np.asarray(rows["text_bytes"])[taken])
        columns["part"].append(np.full(len(taken), number))
        columns["row"].append(taken)
    table = {name: np.concatenate(values or [np.empty(0, np.int64)]) for name, values in columns.items()}
    total = sum(weights.values())
    chosen = _choose(table, [int(most_bytes * weight / total) for weight in weights.values()])
    given = np.bincount(table["group"][chosen], table["bytes"][chosen].astype(np.float64), len(weights))
    return TrainingSample(
        part=table["part"][chosen],
        row=table["row"][chosen],
        group_bytes=dict(zip(weights, map(int, given), strict=True)),
    )


def _weights(recipe: Recipe) -> dict[str, float]:
    """Groups and their weights: those of the balance, or else the recipe's sources alike."""
    settings = recipe.tokenizer.train
    if settings is not None and settings.balance is not None:
        return dict(settings.balance)
    return {source.name: 1.0 for source in recipe.sources}


def _groups(recipe: Recipe, names: list[str], table: pa.Table, ensemble: Ensemble | None) -> Int64s:
    """int64[rows]: the number of each row's group, -1 where no source or no group takes it."""
    conditions = bind_sources(recipe, table.drop_columns(["verdict", "cluster_size"]).schema, ensemble)
    taken = evaluate_sources(recipe, replace(conditions, factor=None, order=None), table, kept_only=True)
    source = taken.source.astype(np.int64)
    settings = recipe.tokenizer.train
    if settings is None or settings.balance is None:
        return source
    values = _evaluate_key(recipe, settings, table, ensemble)
    found = pc.index_in(values, pa.array(names, pa.string()), skip_nulls=True)
    others = names.index(OTHERS) if OTHERS in names else -1
    return np.where(source >= 0, np.asarray(found.fill_null(others), np.int64), -1)


def _evaluate_key(recipe: Recipe, settings: TrainTokenizer, table: pa.Table, ensemble: Ensemble | None) -> pa.Array:
    """string[rows]: the value that the balance names, null where there is none."""
    at = recipe.at("tokenizer", "train", "balance_by" if settings.balance_by else "balance")
    numbered = table.append_column("_row", pa.array(np.arange(table.num_rows)))
    with open_engine(**{TABLE: numbered}) as engine:
        names = with_ensemble(names_of(table.schema, DECISION_NAMES), table.schema, ensemble, {})
        sql, _, _ = Binder(engine, names).bind(settings.balance_key, at)
        try:
            found = engine.query(f"SELECT CAST({sql} AS VARCHAR) AS value FROM {TABLE} ORDER BY _row")
        except duckdb.Error as error:
            raise SqlError(
                f"`{settings.balance_key}` cannot be computed: {reason(error)}",
                at=at,
                hint="name a column, or an expression that gives one of the names under `balance`",
            ) from error
    return found["value"].combine_chunks()


def _choose(table: dict[str, npt.NDArray[np.generic]], budgets: list[int]) -> Int64s:
    """Rows of the sample: of each group in the order of the keys, up to the first that fills its budget."""
    chosen = [np.empty(0, np.int64)]
    for group, budget in enumerate(budgets):
        rows = np.flatnonzero(table["group"] == group)
        rows = rows[np.argsort(table["key"][rows], kind="stable")]
        size = table["bytes"][rows].astype(np.int64)
        chosen.append(rows[np.cumsum(size) - size < budget])
    return np.sort(np.concatenate(chosen))

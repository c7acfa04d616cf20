"""Examples: what a labelling recipe chooses, drawn by a hash of the text, each distinct text once, in a fixed order.

Invariant: the same recipe, seed and texts give the same examples in the same order, however the texts are cut into
parts. A text that is chosen under two labels has none and is left out. `group` is the same for texts that must not be
on both sides of a split: copies, near-duplicates of a run, equal values of the recipe's own `group`, and whatever
these join.
Trade-off: all chosen texts are in memory at once, 1.5 GB for 440,000 of 3.4 KB, because training shuffles them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.binding import TABLE, Binder
from mixtures.corpus import draw_keys
from mixtures.labelling import Choice, Graded, Labelling
from mixtures.origins import GROUP, HASH, Origin
from mixtures.sql import open_engine, reason
from storage.errors import InputError, SqlError
from storage.schema import IDENTIFIER

PURPOSE = "examples"
EXAMPLES = pa.schema(
    [
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("grade", pa.float64()),
        pa.field("language", pa.string()),
        pa.field("group", IDENTIFIER, nullable=False),
    ]
)
"""`grade` is the label as a number where labels are grades, else null."""
_CHOSEN = pa.schema(
    [
        pa.field("key", pa.uint64()),
        pa.field("hash", IDENTIFIER),
        pa.field("near", IDENTIFIER),
        pa.field("of", pa.string()),
        pa.field("label", pa.string()),
        pa.field("grade", pa.float64()),
        pa.field("language", pa.string()),
        pa.field("origin", pa.int32()),
        pa.field("part", pa.int32()),
        pa.field("row", pa.int64()),
    ]
)
_ROWS_HELD = 1 << 16
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINY", "USMALL", "UINT", "UBIG", "FLOAT", "DOUBLE",
            "DECIMAL")  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """`table`: EXAMPLES, in the order of the draw; `facts`: what was met and what was left out."""

    table: pa.Table
    facts: dict[str, Any]


def choose_examples(
    recipe: Labelling, origins: Sequence[Origin], *, most_per_label: int | None = None, seed: int = 0
) -> Examples:
    """Draw from the origins, one for each of `recipe.choices()`; at most so many of a class, or of all grades.

    Raises SqlError for a wrong expression, and InputError where nothing is chosen.
    """
    facts: Counter[str] = Counter()
    held = _CHOSEN.empty_table()
    for rows in _chosen(recipe, origins, seed):
        facts["met"] += rows.num_rows
        held = _least(pa.concat_tables([held, rows]), most_per_label, slack=_ROWS_HELD)
    distinct = _distinct(held, facts)
    kept = _least(distinct, most_per_label, slack=0)
    facts["over_the_most"] += distinct.num_rows - kept.num_rows
    if not kept.num_rows:
        raise InputError("no text is chosen", at=recipe.file, hint="check `where`, and that labels are not null")
    return Examples(_with_texts(kept, _groups(kept), origins), {**facts, "labels": _count(kept)})


def _chosen(recipe: Labelling, origins: Sequence[Origin], seed: int) -> Iterator[pa.Table]:
    """_CHOSEN rows of each part of each choice."""
    for number, ((choice, name, place), origin) in enumerate(zip(recipe.choices(), origins, strict=True)):
        for part, table in origin.tables():
            key = pa.array(draw_keys(table[HASH], PURPOSE, seed))
            names = origin.names(table.schema)
            with open_engine(**{TABLE: table.append_column("_key", key)}) as engine:
                sql = _query(Binder(engine, names), choice, name, lambda *at: recipe.at(*place, *at))  # noqa: B023
                try:
                    found = engine.query(sql)
                except duckdb.Error as error:
                    what = f"an expression cannot be computed: {reason(error)}"
                    raise SqlError(what, at=recipe.at(*place)) from error
            columns = [pa.array(np.full(found.num_rows, value, np.int32)) for value in (number, part)]
            found = found.append_column("origin", columns[0]).append_column("part", columns[1])
            yield found.select(_CHOSEN.names).cast(_CHOSEN)


def _query(binder: Binder, choice: Choice, name: str | None, at: Any) -> str:
    where = binder.condition(choice.where, at("where"))[0] if choice.where else "true"
    group = f"CAST({binder.bind(choice.group, at('group'))[0]} AS VARCHAR)" if choice.group else "NULL::VARCHAR"
    label, grade = (f"'{name}'", "NULL::DOUBLE") if name else _label(binder, choice, at("label"))
    known = next((each for each in ("language.label", "language", "lang") if each in binder.names.columns), None)
    language = f"CAST({binder.name_sql(known)} AS VARCHAR)" if known else "NULL::VARCHAR"
    return (
        f'SELECT _key AS key, {HASH} AS hash, {GROUP} AS near, {group} AS "of", {label} AS label, {grade} AS grade, '
        f'{language} AS language, _row AS "row" FROM {TABLE} WHERE {where} AND {label} IS NOT NULL'
    )


def _label(binder: Binder, choice: Choice, at: str) -> tuple[str, str]:
    """The SQL of the label as text, and of the grade; a label that is not finite is none."""
    assert isinstance(choice, Graded)
    sql, kind, _ = binder.bind(choice.label, at)
    if kind.startswith(_NUMBERS):
        number = f"CASE WHEN isfinite(CAST({sql} AS DOUBLE)) THEN CAST({sql} AS DOUBLE) END"
        return f"CAST({number} AS VARCHAR)", number
    if kind == '"NULL"':  # a column without any value
        return "NULL::VARCHAR", "NULL::DOUBLE"
    if kind != "VARCHAR":
        raise SqlError(f"the label is {kind}, neither a number nor a string", at=at, hint="write a CASE expression")
    return sql, "NULL::DOUBLE"


def _least(rows: pa.Table, most: int | None, *, slack: int) -> pa.Table:
    """Of each class the rows with the least keys, once there are more than twice as many and `slack`; grades as one."""
    if most is None or (slack and rows.num_rows < 2 * most + slack):
        return rows
    order = np.lexsort((_place(rows), np.asarray(rows["key"])))
    classes = _codes(pc.if_else(rows["grade"].is_valid(), "", rows["label"]))
    taken = [order[classes[order] == name][: most if not slack else 2 * most] for name in np.unique(classes)]
    return rows.take(pa.array(np.sort(np.concatenate(taken))))


def _place(rows: pa.Table) -> npt.NDArray[np.int64]:
    origin, part, row = (np.asarray(rows[name], np.int64) for name in ("origin", "part", "row"))
    return origin << 56 | part << 36 | row


def _distinct(rows: pa.Table, facts: Counter[str]) -> pa.Table:
    """One row a text, in the order of the draw; none of a text that has several labels."""
    rows = rows.take(pa.array(np.lexsort((_place(rows), np.asarray(rows["key"])))))
    _, first, which = np.unique(_codes(rows["hash"]), return_index=True, return_inverse=True)
    labels = _codes(rows["label"])
    several = np.zeros(len(first), bool)
    np.logical_or.at(several, which, labels != labels[first][which])
    kept = np.sort(first[~several])
    facts["under_two_labels"] += int(several[which].sum())
    facts["copies"] += rows.num_rows - len(kept) - int(several[which].sum())
    return rows.take(pa.array(kept))


def _groups(rows: pa.Table) -> pa.Array:
    """One identifier for all rows that a hash, a cluster or the recipe's own group joins, also through others."""
    joins = [_codes(rows[name]) for name in ("hash", "near")]
    own = _codes(rows["of"])
    joins.append(np.where(np.asarray(rows["of"].is_valid()), own, own.max(initial=0) + 1 + np.arange(len(own))))
    group = np.arange(rows.num_rows)
    while True:
        before = group
        for join in joins:
            least = np.full(int(join.max(initial=0)) + 1, rows.num_rows)
            np.minimum.at(least, join, group)
            group = least[join]
        if (group == before).all():
            break
    return rows["hash"].combine_chunks().take(pa.array(group))


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(column.combine_chunks().dictionary_encode(null_encoding="encode").indices, np.int64)


def _with_texts(rows: pa.Table, groups: pa.Array, origins: Sequence[Origin]) -> pa.Table:
    """EXAMPLES in the order of `rows`."""
    place = _place(rows)
    order = np.argsort(place)
    texts = [pa.array([], pa.large_string())]
    for number, origin in enumerate(origins):
        mine = order[np.asarray(rows["origin"])[order] == number]
        parts, row = np.asarray(rows["part"])[mine], np.asarray(rows["row"])[mine]
        texts += [text for _, text in origin.texts({int(part): row[parts == part] for part in np.unique(parts)})]
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    text = pa.concat_arrays(texts).take(pa.array(back))
    table = rows.select(["label", "grade", "language"]).append_column("text", text).append_column("group", groups)
    return table.select(EXAMPLES.names).cast(EXAMPLES)


def _count(rows: pa.Table) -> dict[str, int]:
    """Texts of each class, or of each rounded grade."""
    graded = rows["grade"].null_count < rows.num_rows
    labels = pc.cast(pc.round(rows["grade"]), pa.string()) if graded else rows["label"]
    return dict(sorted(Counter(labels.to_pylist()).items()))

"""Labelled texts as training takes them, and how they are parted into training, validation and test.

Invariant: a split is made of whole groups (copies, near-duplicates, versions of one article), each placed by a hash of
the seed and its name, so neither order nor number of the other examples moves it from one side to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import InputError
from storage.identity import fingerprint, hash_bytes

TRAINING, VALIDATION, TEST = range(3)
SIDES = ("training", "validation", "test")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """A table with `text` (strings), `label` (string), `grade` (float64, null where labels are classes), `language`
    (string or null) and `group` (binary(16)), in the order in which it was drawn."""

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def graded(self) -> bool:
        return bool(self.table["grade"].null_count == 0)

    @property
    def grades(self) -> Floats:
        return np.asarray(self.table["grade"], np.float64)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels, in byte order: so `negative` stands before `positive`."""
        return tuple(sorted(pc.unique(self.table["label"]).to_pylist()))

    @property
    def languages(self) -> list[str | None]:
        return list(self.table["language"].to_pylist())

    def texts(self, rows: npt.NDArray[np.intp] | None = None) -> pa.Array:
        column = self.table["text"].combine_chunks()
        return column if rows is None else column.take(pa.array(rows))

    def take(self, rows: npt.NDArray[np.intp]) -> Examples:
        return Examples(self.table.take(pa.array(rows)))

    def digest(self) -> str:
        """What stands for the examples in an identity: groups, labels, languages and the texts themselves."""
        digest = fingerprint("examples")
        for batch in self.table.to_batches(4096):
            rows = batch.select(["text", "label", "language", "group"]).to_pylist()
            digest = hash_bytes(digest.encode(), *(_row(row) for row in rows)).hex()
        return digest


def _row(row: dict[str, bytes | str | None]) -> bytes:
    return b"\0".join(value if isinstance(value, bytes) else str(value).encode() for value in row.values())


def part_examples(examples: Examples, shares: tuple[float, float, float], seed: int) -> npt.NDArray[np.int8]:
    """int8[N]: TRAINING, VALIDATION or TEST of each example, about the shares of them. They sum to one."""
    groups = examples.table["group"].combine_chunks().dictionary_encode()
    key = str(seed).encode()
    places = [int.from_bytes(hash_bytes(b"split", key, name)[:8]) / 2**64 for name in groups.dictionary.to_pylist()]
    sides = np.searchsorted(np.cumsum(shares)[:2], places, side="right").astype(np.int8)
    return np.asarray(sides[np.asarray(groups.indices)], np.int8)


def require_sides(examples: Examples, sides: npt.NDArray[np.int8], *, least: int, needed: tuple[int, ...]) -> None:
    """Raises InputError where a side has too few examples, or training lacks a class that another side has."""
    for side in needed:
        if (count := int((sides == side).sum())) < least:
            raise InputError(
                f"{len(examples):,} examples leave {count} for {SIDES[side]}; {least} are needed",
                hint="label more texts, or give that side a larger share",
            )
    labels = np.asarray(examples.table["label"])
    if not examples.graded and len(set(labels[sides == TRAINING].tolist())) < 2:
        raise InputError("all training examples have one label", hint="choose texts of two classes or more")

"""The names that policies and recipes may use: `stage.column` for a measurement, plain words for a document's facts.

A name is bound to a column of the catalogue before anything runs. One that does not exist is an error that says which
stage to run, or which names are near.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from mixtures.wording import shorten
from storage.errors import SqlError
from storage.schema import OF_PAGES

PLAIN = ("source", "url", "title", "licence", "collected_at", "text_bytes", "licence_class", "metadata_only", *OF_PAGES)
"""Facts of the document itself. A stage of the same name (`url`) keeps its struct in the column `url_facts`."""

SHOWN_NAMES, FEW_NAMES = 40, 12
"""How many names are listed, and how many beside the nearest ones."""
OPTIONS = {
    "fluency": "--fluency-model PATH",
    "entities": "--entity-model PATH",
    "clean_c4_lines": "--rewrite clean_c4_lines",
    "mask_privacy": "--rewrite mask_privacy",
    "simplify_chinese": "--rewrite simplify_chinese",
    "fasttext": "--measure fasttext:model=PATH",
    "url_lists": "--measure url_lists",
    "word_lists": "--measure word_lists:path=PATH",
    "scores": "--score NAME=MODEL",
}
"""What asks for a stage that runs only when it is asked for."""

COUNTED = {
    "hosts": "hosts are counted when a run is judged, after its gate: leave the rule out of the gate",
    "ensemble": "an ensemble is of scorers, which measure after the gate: `gristmill run --score NAME=MODEL`",
}
"""What no stage measures."""


@dataclass(frozen=True)
class Definition:
    """An expression that a name stands for, and where it is written."""

    text: str
    at: str | None


@dataclass(frozen=True)
class Names:
    """SQL names and the path of the catalogue's column that each stands for: `url.host` → (`url_facts`, `host`).

    `defined` are names that stand for an expression over the others.
    """

    columns: Mapping[str, tuple[str, ...]]
    defined: Mapping[str, Definition] = field(default_factory=dict)

    @property
    def known(self) -> list[str]:
        return [*self.columns, *self.defined]

    @property
    def stages(self) -> list[str]:
        return sorted({name.partition(".")[0] for name in self.known if "." in name})

    def require(self, name: str, *, text: str, at: str | None) -> None:
        """Raises SqlError when there is no such name: the stage to run, or the nearest names."""
        if name in self.columns or name in self.defined:
            return
        stage, dot, _ = name.partition(".")
        what = f"`{shorten(text)}` names `{name}`"
        if dot and stage not in self.stages:
            near = difflib.get_close_matches(name, self.known, 1)
            guess = f"did you mean `{near[0]}`? Otherwise run" if near else "run"
            there = ", ".join(self.stages) or "nothing"
            ask = f"{guess} the stage `{stage}` on them first{_option(stage)}; measured here: {there}"
            raise SqlError(
                f"{what}, but no stage `{stage}` has measured these documents", at=at, hint=COUNTED.get(stage, ask)
            )
        raise SqlError(f"{what}, which does not exist", at=at, hint=self._suggest(name))

    def _suggest(self, name: str) -> str:
        stage = name.partition(".")[0]
        if stage in self.stages:
            pool = [known for known in self.known if known.startswith(f"{stage}.")]
        else:
            pool = self.known
        near = difflib.get_close_matches(name, pool, 3, 0.5)
        listed = f"names here: {', '.join(sorted(pool)[:SHOWN_NAMES])}"
        if not near:
            return listed
        meant = f"did you mean {' or '.join(f'`{known}`' for known in near)}?"
        return f"{meant} {listed}" if len(pool) <= FEW_NAMES else meant


def _option(stage: str) -> str:
    return f" (`gristmill run {OPTIONS[stage]}`)" if stage in OPTIONS else ""


def column_of(stage: str) -> str:
    """The catalogue column that holds a stage's struct."""
    return f"{stage}_facts" if stage in PLAIN else stage


def names_of(schema: pa.Schema, also: tuple[str, ...] = ()) -> Names:
    """The names that a table of this schema gives: its plain columns, those of `also`, and its structs' fields."""
    columns = {name: (name,) for name in (*PLAIN, *also) if name in schema.names}
    for column in schema:
        if pa.types.is_struct(column.type):
            stage = column.name.removesuffix("_facts")
            stage = stage if stage in PLAIN else column.name
            for path in _leaves(column.type):
                columns[".".join((stage, *path))] = (column.name, *path)
    return Names(columns)


def _leaves(kind: pa.DataType) -> Iterator[tuple[str, ...]]:
    for child in kind:
        if pa.types.is_struct(child.type):
            yield from ((child.name, *path) for path in _leaves(child.type))
        else:
            yield (child.name,)

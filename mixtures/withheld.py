"""Withheld documents: those that a recipe never takes, by a list, because others are measured on them.

Invariant: a listed document is in no training index and in no held-out set of the recipe, whatever its policy says and
however the corpus is cut into parts. The list is in memory once, some 80 bytes a document: held-out sets have
thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mixtures.conditions import NOBODY, Taken
from mixtures.recipe import Recipe, policy_folder
from storage.commit import write_atomically
from storage.errors import RecipeError
from storage.identity import hash_bytes, hash_file
from storage.schema import IDENTIFIER

LISTED = pa.schema([pa.field("doc_id", IDENTIFIER, nullable=False)])


def write_withheld(folder: Path, documents: Sequence[bytes]) -> Path:
    """Write a list of documents under `folder`, named by what is in it."""
    listed = sorted(set(documents))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"doc_id": pa.array(listed, IDENTIFIER)}, schema=LISTED), sink)
    path = folder / f"withheld-{hash_bytes(b''.join(listed)).hex()[:12]}.parquet"
    write_atomically(path, sink.getvalue().to_pybytes())
    return path


def withheld_path(recipe: Recipe) -> Path | None:
    """Where the recipe's list is."""
    return policy_folder(recipe) / recipe.withheld if recipe.withheld else None


def identify_withheld(recipe: Recipe) -> dict[str, str]:
    """What the list adds to the identity of a plan: nothing without one. Raises RecipeError where it is not there."""
    path = withheld_path(recipe)
    if path is None:
        return {}
    if not path.is_file():
        raise RecipeError(f"there is no list of withheld documents `{recipe.withheld}`", at=recipe.at("withheld"))
    return {"withheld": hash_file(path)}


def read_withheld(recipe: Recipe) -> list[bytes]:
    """The documents on the recipe's list; none without one. Raises RecipeError for what is no list."""
    path = withheld_path(recipe)
    if path is None:
        return []
    identify_withheld(recipe)
    listed: list[bytes] = _read(recipe, path, path.stat().st_mtime_ns).to_pylist()
    return listed


def without_withheld(recipe: Recipe, taken: Taken, doc_id: pa.ChunkedArray) -> Taken:
    """`taken` of the rows `doc_id`, the listed ones taken by nobody. Raises RecipeError for what is no list."""
    path = withheld_path(recipe)
    if path is None:
        return taken
    identify_withheld(recipe)
    listed = np.asarray(pc.is_in(doc_id.cast(pa.binary()), _read(recipe, path, path.stat().st_mtime_ns)))
    return replace(taken, source=np.where(listed, np.int32(NOBODY), taken.source))


def _read(recipe: Recipe, path: Path, modified: int) -> pa.Array:
    try:
        return _read_list(path, modified)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise RecipeError(
            f"this is no list of withheld documents: {error}",
            at=recipe.at("withheld"),
            hint="name a Parquet file with a column `doc_id` of 16 bytes each",
        ) from error


@lru_cache(maxsize=4)
def _read_list(path: Path, modified: int) -> pa.Array:
    del modified  # a list that changed is read again
    column = pq.read_table(path, columns=["doc_id"])["doc_id"]
    return column.cast(IDENTIFIER).cast(pa.binary()).combine_chunks()

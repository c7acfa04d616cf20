"""Which documents a recipe rearranges for fill-in-the-middle, and how: a share of each source that asks for it.

A document is drawn by a hash of its doc_id alone, so it is rearranged or not in every run. The token store holds the
outcome, so it is keyed by the sources that ask and by those before them, which could take a document away.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mixtures.conditions import assign_sources
from mixtures.corpus import draw_keys
from mixtures.recipe import Recipe
from storage.identity import fingerprint

AS_IT_IS, PREFIX_FIRST, SUFFIX_FIRST = 0, 1, 2
VERSION = 1
DECIDING = {"where", "repeat", "fill_in_middle"}
"""What of a source says which documents it takes, and which of them it rearranges: a factor of 0 takes none."""


def identify_choice(recipe: Recipe) -> str | None:
    """32 hex digits of what decides which documents are rearranged; None where no source asks for it."""
    asking = [i for i, source in enumerate(recipe.sources) if source.fill_in_middle]
    if not asking:
        return None
    deciding = [
        source.model_dump(mode="json", include=DECIDING, exclude_none=True)
        for source in recipe.sources[: asking[-1] + 1]
    ]
    return fingerprint({"version": VERSION, "sources": deciding})


def choose_orders(recipe: Recipe, catalogue: pa.Table, verdicts: pa.Table) -> npt.NDArray[np.uint8]:
    """uint8[rows]: the order of each document of a part: AS_IT_IS, PREFIX_FIRST or SUFFIX_FIRST."""
    asked = [source.fill_in_middle for source in recipe.sources]
    share = np.array([*((middle.share if middle else 0.0) for middle in asked), 0.0])
    suffix_first = np.array([*((middle.suffix_first if middle else 0.0) for middle in asked), 0.0])
    source = assign_sources(recipe, catalogue, verdicts)
    drawn = draw_keys(catalogue["doc_id"], "fill-in-the-middle", 0) / 2.0**64
    orders = np.where(drawn < share[source] * suffix_first[source], SUFFIX_FIRST, PREFIX_FIRST)
    return np.where(drawn < share[source], orders, AS_IT_IS).astype(np.uint8)

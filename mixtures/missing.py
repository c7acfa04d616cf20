"""Why a source of a recipe has no documents: the question is answered from the ledger before the error is raised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow.compute as pc

from mixtures.corpus import Corpus
from mixtures.recipe import Recipe
from mixtures.wording import shorten
from storage.errors import RecipeError

SHOWN = 8


def explain_empty_sources(recipe: Recipe, corpus: Corpus, positions: Sequence[int]) -> RecipeError:
    """The error for sources without tokens, all of them at once; each is looked up, the first few that is."""
    errors = [_explain(recipe, corpus, position) for position in positions[:SHOWN]]
    if len(positions) == 1:
        return errors[0]
    hints = list(dict.fromkeys(error.hint for error in errors))
    lines = [f"{error.at}: {error.what}" + (f" ({error.hint})" if len(hints) > 1 else "") for error in errors]
    left = [f"and {len(positions) - SHOWN} more"] if len(positions) > SHOWN else []
    return RecipeError(
        f"{len(positions)} sources are left without documents\n  " + "\n  ".join([*lines, *left]),
        at=recipe.file,
        hint=(f"{hints[0]}; " if len(hints) == 1 else "")
        + "remove what you have not: the others keep their proportions",
    )


def _explain(recipe: Recipe, corpus: Corpus, position: int) -> RecipeError:
    """The error for a source without tokens: nothing meets its condition, nothing passed, or others took it all."""
    source = recipe.sources[position]
    alone = recipe.model_copy(update={"sources": (source,)})
    origins: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    met = kept = 0
    for catalogue, verdicts, meets in corpus.matching(alone):
        mine = verdicts.filter(meets)
        met += mine.num_rows
        kept += pc.sum(pc.equal(mine["verdict"], "kept")).as_py() or 0
        origins.update(catalogue["source"].to_pylist())
        rules.update(rule for rule in mine["rule"].to_pylist() if rule)
    judged_by = corpus.verdicts.manifest.stage["policy"]["name"]
    at = recipe.at("sources", position, "where")
    if not met:
        return RecipeError(
            f"no document meets the condition of source `{source.name}`: {shorten(source.where)}",
            at=at,
            hint=f"`source` can be: {_listed(origins)}",
        )
    if not kept:
        return RecipeError(
            f"none of the {met:,} documents of source `{source.name}` passed the policy `{judged_by}`",
            at=at,
            hint=f"they were dropped by: {_listed(rules)}; choose another policy, or remove the source",
        )
    return RecipeError(
        f"source `{source.name}` is left without documents: of the {kept:,} that meet its condition and passed the "
        "policy, all belong to sources before it, hold no token or have a factor of 0",
        at=at,
        hint="a document belongs to the first source that takes it: put this one higher, or narrow the others",
    )


def _listed(counts: Counter[str]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"`{name}` ({count:,})" for name, count in ranked[:SHOWN])
    return shown + (f", and {len(ranked) - SHOWN} more" if len(ranked) > SHOWN else "")

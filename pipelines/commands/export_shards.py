"""`gristmill export --format shards`: a run's mixture as Megatron shards that need no run folder beside them.

What a run holds of a mixture are indices that point into its token store. Here every document that is taken is copied
once, with indices of its own (repeats stay in the index) and a new map, `selection.parquet`. 2 or 4 bytes a token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mixtures.corpus import open_corpus
from mixtures.plan import MixturePlan, plan_stages
from mixtures.select import BLEND, TOKENIZER, VOCABULARY, write_compact_mixture
from pipelines.commands.export_lists import tokenizer_config
from pipelines.request import saved_request
from pipelines.run_folder import RunFolder, require_step
from pipelines.steps import recipe_of
from pipelines.training_stages import stage_named
from storage.commit import write_atomically
from storage.errors import DatasetError

CARD = "README.md"
CARD_TEXT = """# Mixture `{name}`

Megatron `.bin/.idx` shards, each document stored once; repeats stand in the index, so one pass is the whole training.

| source | tokens to train on | epochs | tokens held out |
|---|---|---|---|
{rows}

`blend.json` names the shards with their weights, `selection.parquet` says which document each sequence is, `plan.json`
how the mixture was worked out, and `vocabulary.json` the size and end-of-document id of `tokenizer.json`.

With Megatron-LM, from this folder:

    --train-data-path {path}
    --tokenizer-type HuggingFaceTokenizer --tokenizer-model . --seq-length {length}
"""


def export_shards(folder: RunFolder, target: Path, stage: str | None = None) -> None:
    """Write the mixture of the run's only stage, its first, or the one named, to `target`.

    Raises DatasetError if it would be another one now.
    """
    mixed, recipe = mixture_of(folder, stage), recipe_of(saved_request(folder.root))
    policy = str(require_step(folder, "judge").result["policy"])
    tokenizer = str(require_step(folder, "tokenize").result["tokenizer"])
    corpus = open_corpus(folder.catalogue, folder.decisions(policy), folder.tokens(tokenizer))
    plan = next(plan for plan in plan_stages(recipe, corpus, force=True) if stage in (None, plan.stage))
    if plan.identity() != mixed:
        raise DatasetError(
            f"the run's mixture {mixed} is not what its recipe `{recipe.name}` gives now ({plan.identity()})",
            at=recipe.file,
            hint=f"the recipe was changed since: do `gristmill run --recipe {recipe.file}` with the run's inputs again",
        )
    write_compact_mixture(target, plan, recipe, corpus, vocabulary=folder.vocabulary(tokenizer))
    blend = json.loads((target / BLEND).read_bytes())
    end = int(json.loads((target / VOCABULARY).read_bytes())["end_of_document"])
    write_atomically(target / "tokenizer_config.json", tokenizer_config((target / TOKENIZER).read_bytes(), end))
    write_atomically(target / CARD, describe_shards(plan, blend).encode())
    click.echo(f"{plan.tokens_given:,} tokens to train on in {len(blend['train'])} shards written to {target}")


def mixture_of(folder: RunFolder, stage: str | None) -> str:
    """Identity of the run's mixture, or of that of the stage named. Raises InputError for one that there is not."""
    mixed = require_step(folder, "mix").result
    return str(mixed["mixture"]) if stage is None else stage_named(mixed, stage).mixture


def describe_shards(plan: MixturePlan, blend: dict[str, Any]) -> str:
    """A card: what each source gives, and how Megatron-LM is told of it."""
    path = " ".join(f"{entry['weight']:.0f} {entry['prefix']}" for entry in blend["train"])
    rows = "\n".join(
        f"| {source.name} | {source.tokens_given:,} | {source.epochs:.2f} | {source.heldout_tokens:,} |"
        for source in plan.sources
    )
    return CARD_TEXT.format(name=plan.recipe, rows=rows, path=path, length=plan.sequence_length)

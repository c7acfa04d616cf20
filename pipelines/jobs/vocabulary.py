"""The vocabulary job: load the recipe's tokenizer, or train one on an even sample of the documents that it takes.

The sample is drawn by a hash of (seed, doc_id), each source getting the same budget of bytes, so it depends on the
documents alone; one that runs short leaves its rest to nobody. At most 256 MB of text are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixtures.corpus import assign_sources, draw_keys
from mixtures.hosts import open_catalogue
from mixtures.recipe import Recipe, load_recipe, policy_folder
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.middle import arranged
from pipelines.run_folder import RunFolder
from storage.errors import RecipeError
from storage.manifests import Dataset, open_dataset
from tokenizer.vocabulary import (
    TokenizerFile,
    TrainingConfig,
    describe_tokenizer,
    load_tokenizer,
    train_tokenizer,
    write_vocabulary,
)

VERSION = 1
SAMPLE_BYTES = 256_000_000


def run(job: Job) -> dict[str, Any]:
    """Make the vocabulary; returns the tokenizer's hash."""
    arguments = {"root": str(job.run_folder), **job.spec}
    report = run_parts(
        job,
        [PartTask(identity=job.spec["identity"], arguments=arguments)],
        make_vocabulary,
        total=1,
        stage="vocabulary",
    )
    report.require_all()
    (result,) = report.results
    assert result is not None
    return result


def make_vocabulary(arguments: dict[str, Any]) -> dict[str, Any]:
    folder, recipe = RunFolder(Path(arguments["root"])), load_recipe(arguments["recipe"])
    settings = recipe.tokenizer
    if settings.load is not None:
        path = policy_folder(recipe) / settings.load
        tokenizer = load_tokenizer(path, end_of_document=settings.end_of_document)
        sample = 0
    else:
        assert settings.train is not None
        texts = list(sample_texts(folder, recipe, arguments["policy"], settings.train.sample or SAMPLE_BYTES))
        if not texts:
            raise RecipeError(
                "no source of the recipe takes any document, so there is nothing to train a tokenizer on",
                at=recipe.at("sources"),
                hint="look at the report's funnel, or `gristmill why URL`, for what dropped them",
            )
        data = train_tokenizer(texts, TrainingConfig(size=settings.train.vocabulary_size))
        tokenizer = TokenizerFile(data, describe_tokenizer(data))
        sample = sum(len(text.encode()) for text in texts)
    tokenizer = arranged(recipe, tokenizer)
    identity = tokenizer.vocabulary.tokenizer_hash
    write_vocabulary(folder.vocabulary(identity), tokenizer)
    return {"tokenizer": identity, "vocabulary": tokenizer.vocabulary.facts(), "sample_bytes": sample}


def sample_texts(folder: RunFolder, recipe: Recipe, policy: str, budget: int) -> Iterator[str]:
    """Texts of the sample, part by part in their order; `budget` is bytes, shared evenly by the recipe's sources."""
    documents = open_dataset(folder.documents)
    catalogue = open_catalogue(folder.catalogue)
    verdicts = open_dataset(folder.decisions(policy) / "verdicts")
    columns: dict[str, list[Any]] = {"source": [], "key": [], "bytes": [], "part": [], "row": []}
    for number, (ours, theirs) in enumerate(zip(catalogue.parts, verdicts.parts, strict=True)):
        rows = catalogue.read(ours)
        source = np.asarray(assign_sources(recipe, rows, verdicts.read(theirs)).fill_null(-1))
        taken = np.flatnonzero(source >= 0)
        columns["source"].append(source[taken])
        columns["key"].append(draw_keys(rows["doc_id"], "vocabulary", recipe.seed)[taken])
        columns["bytes"].append(np.asarray(rows["text_bytes"])[taken])
        columns["part"].append(np.full(len(taken), number))
        columns["row"].append(taken)
    table = {name: np.concatenate(values) for name, values in columns.items()}
    chosen = _choose(table, budget // len(recipe.sources))
    yield from _read(documents, table["part"][chosen], table["row"][chosen])


def _choose(table: dict[str, Any], budget: int) -> Any:
    """Rows of the sample: of each source in the order of the keys, up to the first that fills the budget."""
    chosen = [np.empty(0, np.int64)]
    for source in np.unique(table["source"]):
        rows = np.flatnonzero(table["source"] == source)
        rows = rows[np.argsort(table["key"][rows], kind="stable")]
        before = np.cumsum(table["bytes"][rows]) - table["bytes"][rows]
        chosen.append(rows[before < budget])
    return np.sort(np.concatenate(chosen))


def _read(documents: Dataset, parts: Any, rows: Any) -> Iterator[str]:
    for number in np.unique(parts):
        wanted = rows[parts == number]
        start = 0
        for batch in documents.batches(documents.parts[number], ["text"]):
            here = wanted[(wanted >= start) & (wanted < start + batch.num_rows)] - start
            yield from batch.column("text").take(pa.array(here)).to_pylist()
            start += batch.num_rows

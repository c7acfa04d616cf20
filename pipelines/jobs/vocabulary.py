"""The vocabulary job: load the recipe's tokenizer, or train one on a sample of the documents that it takes.

Texts are read and counted a batch at a time; what is held are their distinct words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixtures.hosts import open_catalogue
from mixtures.recipe import Recipe, load_recipe, policy_folder
from mixtures.training_sample import TrainingSample, draw_training_sample
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from pipelines.middle import arranged, special_tokens
from pipelines.run_folder import RunFolder
from storage.errors import RecipeError
from storage.manifests import Dataset, open_dataset
from tokenizer.encode import Encoder
from tokenizer.reduction import count_entries, keep_frequent
from tokenizer.training import TrainingConfig, train_tokenizer
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer, load_tokenizer, write_vocabulary

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
    sample: dict[str, int] = {}
    tokenizer = _load(recipe)
    if recipe.tokenizer.of_documents:
        drawn = _draw(folder, recipe, arguments["policy"])
        texts = _read(open_dataset(folder.documents), drawn)
        tokenizer = _train(recipe, texts) if tokenizer is None else _reduce(recipe, tokenizer, texts)
        sample = drawn.group_bytes
    assert tokenizer is not None
    tokenizer = arranged(recipe, tokenizer)
    identity = tokenizer.vocabulary.tokenizer_hash
    write_vocabulary(folder.vocabulary(identity), tokenizer)
    return {"tokenizer": identity, "vocabulary": tokenizer.vocabulary.facts(), "sample_bytes": sample}


def _load(recipe: Recipe) -> TokenizerFile | None:
    settings = recipe.tokenizer
    if settings.load is None:
        return None
    path = policy_folder(recipe) / settings.load
    return load_tokenizer(path, end_of_document=settings.end_of_document, scheme=settings.scheme)


def _draw(folder: RunFolder, recipe: Recipe, policy: str) -> TrainingSample:
    settings = recipe.tokenizer.train
    sample = draw_training_sample(
        recipe,
        open_catalogue(folder.catalogue),
        open_dataset(folder.decisions(policy) / "verdicts"),
        (settings and settings.sample) or SAMPLE_BYTES,
    )
    if not len(sample.row):
        raise RecipeError(
            "no source of the recipe takes any document, so there is nothing to train a tokenizer on",
            at=recipe.at("sources"),
            hint="look at the report's funnel, or `gristmill why URL`, for what dropped them",
        )
    return sample


def _train(recipe: Recipe, texts: Iterator[pa.StringArray]) -> TokenizerFile:
    settings = recipe.tokenizer.train
    assert settings is not None
    config = TrainingConfig(
        size=settings.vocabulary_size,
        min_frequency=settings.min_frequency,
        max_token_bytes=settings.max_token_bytes,
        max_digits=settings.digits,
        end_of_document=settings.end_of_document,
        special_tokens=special_tokens(recipe),
    )
    data = train_tokenizer(texts, config)
    return TokenizerFile(data, describe_tokenizer(data, named=settings.end_of_document))


def _reduce(recipe: Recipe, tokenizer: TokenizerFile, texts: Iterator[pa.StringArray]) -> TokenizerFile:
    """The most frequent entries of a loaded tokenizer, with the same token as the end of documents."""
    encoder, keep = Encoder(tokenizer), recipe.tokenizer.keep
    assert keep is not None
    data, _ = keep_frequent(tokenizer.data, count_entries(encoder, texts), keep)
    end = encoder.decode([tokenizer.vocabulary.end_of_document])
    return TokenizerFile(data, describe_tokenizer(data, named=end))


def _read(documents: Dataset, sample: TrainingSample) -> Iterator[pa.StringArray]:
    """The sample's texts, a batch at a time."""
    for number in np.unique(sample.part):
        wanted = sample.row[sample.part == number]
        start = 0
        for batch in documents.batches(documents.parts[number], ["text"]):
            here = wanted[(wanted >= start) & (wanted < start + batch.num_rows)] - start
            if len(here):
                yield batch.column("text").take(pa.array(here))
            start += batch.num_rows

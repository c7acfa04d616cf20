"""What a recipe is planned on: a run's own datasets where they are what the recipe names, else the nearest to them.

Another policy is judged here, over what the run has measured; another tokenizer is stood for by the run's own. Nothing
is written into the run, and nothing differs silently: the corpus carries a note for each difference from what a run of
the recipe would have. Verdicts lie in a temporary folder meanwhile, about 50 bytes a document.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mixtures.binding import BoundPolicy, bind_policy
from mixtures.corpus import Corpus, open_corpus
from mixtures.decisions import commit_decisions, publish_decisions
from mixtures.estimate import EstimatedCorpus
from mixtures.fitting import fit_policy
from mixtures.hosts import open_catalogue
from mixtures.judge import judge_duplicates, judge_rules
from mixtures.licences import hold_back
from mixtures.policy import Policy, load_policy
from mixtures.recipe import Recipe, load_recipe, policy_folder
from pipelines.dedup.candidates import CANDIDATES
from pipelines.dedup.range_files import RangeFiles, read_range
from pipelines.duplicates import (
    SETTLED,
    count_settle_ranges,
    duplicates_of,
    find_members,
    rank_members,
    read_found,
    read_members,
    settle_range,
)
from pipelines.middle import arranged
from pipelines.request import saved_request
from pipelines.run_folder import RunFolder, require_step
from pipelines.steps import plan_vocabulary, policy_of
from storage.errors import RecipeError, SqlError
from storage.manifests import Dataset, find_manifest, open_dataset
from tokenizer.vocabulary import load_tokenizer


@dataclasses.dataclass(frozen=True)
class _Found:
    """A dataset to plan on, and what about it is not as the recipe says; `own` if it is the run's and nothing is."""

    folder: Path
    notes: tuple[str, ...] = ()
    own: bool = False


@contextmanager
def foresee_corpus(folder: RunFolder, recipe: Recipe, policy: str | None = None) -> Iterator[Corpus]:
    """The corpus that a recipe would be mixed from, as far as the run can tell; `policy` stands for the recipe's.

    Raises RecipeError or ModelError for a policy or tokenizer that is none, DatasetError for a run without tokens.
    """
    with TemporaryDirectory(prefix="gristmill-plan-") as scratch:
        wanted = hold_back(_wanted_policy(folder, recipe, policy), recipe.allow_licences)
        decided = _find_decisions(folder, wanted, Path(scratch))
        counted = _find_tokens(folder, recipe, same_documents=decided.own)
        corpus = open_corpus(folder.catalogue, decided.folder, counted.folder)
        if decided.own and counted.own:
            yield corpus
        else:
            yield EstimatedCorpus(
                corpus.catalogue, corpus.verdicts, corpus.tokens, notes=(*decided.notes, *counted.notes)
            )


def _wanted_policy(folder: RunFolder, recipe: Recipe, named: str | None) -> Policy:
    """The policy named now, else the one that the run of this recipe was given, else the recipe's."""
    request = saved_request(folder.root)
    if named:
        return load_policy(named)
    if request.policy and _is_recipe(recipe, request.recipe):
        return policy_of(request)
    return load_policy(recipe.policy, beside=policy_folder(recipe))


def _is_recipe(recipe: Recipe, reference: str) -> bool:
    try:
        return load_recipe(reference).identity() == recipe.identity()
    except RecipeError:
        return False


def _find_decisions(folder: RunFolder, policy: Policy, scratch: Path) -> _Found:
    judged = require_step(folder, "judge").result
    own = folder.decisions(str(judged["policy"]))
    if policy.identity() == judged["policy"]:
        return _Found(own, own=True)
    theirs: Mapping[str, Any] = open_dataset(own / "verdicts").manifest.stage["policy"]
    try:
        kept, notes = _judge(folder, policy, scratch)
    except SqlError as error:
        reason = str(error).partition("\n")[0]
        said = f"documents are judged by the run's policy `{theirs['name']}`, not by `{policy.name}`: {reason}"
        return _Found(own, (said,))
    told = (
        f"documents are judged by `{policy.name}` for this plan: it keeps {kept:,} of {judged['documents']:,}, "
        f"the run's policy `{theirs['name']}` kept {judged['kept']:,}"
    )
    gate = _gate(theirs)
    if gate and gate != _gate(policy.model_dump(mode="json", exclude_none=True)):
        gated = f"what the gate of `{theirs['name']}` stopped was not scored, and passes rules on scores"
        return _Found(scratch, (told, gated, *notes))
    return _Found(scratch, (told, *notes))


def _gate(policy: Mapping[str, Any]) -> list[Any]:
    """The rules that say which documents are scored."""
    names = (policy.get("gate") or {}).get("rules", ())
    return [rule for rule in policy["rules"] if rule["rule"] in names]


def _judge(folder: RunFolder, policy: Policy, target: Path) -> tuple[int, tuple[str, ...]]:
    """Judge every part into `target`; returns how many are kept, and what could not be settled as a run would."""
    catalogue = open_catalogue(folder.catalogue)
    fitted = fit_policy(policy, catalogue, folder.percentiles, keep=False)
    bound = bind_policy(policy, catalogue.schema(catalogue.parts[0]), fitted)
    settled, uncompared = _settle(folder, catalogue, bound, target / "settled")
    parts = []
    for part in catalogue.parts:
        table = catalogue.read(part)
        here = read_range(settled, find_members(folder, part).facts["number"], SETTLED)
        decided = judge_duplicates(table, bound, judge_rules(table, bound), **duplicates_of(here))
        parts.append(commit_decisions(target, part, bound, decided))
    verdicts, _ = publish_decisions(target, policy, parts)
    return int(verdicts.facts["kept"]), tuple(_unsettled(folder, bound, uncompared))


def _settle(folder: RunFolder, catalogue: Dataset, bound: BoundPolicy, target: Path) -> tuple[list[Path], int]:
    """The SETTLED files of all ranges, one in memory at a time, and how many pairs were wanted but not compared."""
    files, numbers = RangeFiles(target, "plan"), range(count_settle_ranges(folder))
    for i, part in enumerate(catalogue.parts):
        members = read_members(folder, find_members(folder, part))
        files.commit("ranks", i, rank_members(catalogue.read(part), bound, members))
    ranked, uncompared = files.paths("ranks", range(len(catalogue.parts))), 0
    for number in numbers:
        found = read_found(folder, number)
        settled, missing = settle_range(bound, ranked, number, found, CANDIDATES.empty_table(), 1)
        uncompared += len(missing)
        files.commit("settled", number, settled)
    return files.paths("settled", numbers), uncompared


def _unsettled(folder: RunFolder, bound: BoundPolicy, uncompared: int) -> Iterator[str]:
    config = open_dataset(folder.duplicates / "pairs").manifest.stage["config"]
    searched, kinds = config["threshold"], {kind: similarity for kind, _, _, similarity in bound.duplicates}
    wanted = kinds.get("near")
    if "semantic" in kinds and not config.get("semantic"):
        yield "the policy drops semantic duplicates, which this run did not look for: they are kept here"
    if "url" in kinds and not config.get("urls"):
        yield "the policy drops duplicates by URL, which this run did not look for: they are kept here"
    if wanted is not None and wanted < searched:
        yield (
            f"the policy drops near-duplicates from a similarity of {wanted:g}, this run searched from {searched:g}: "
            "those below are kept here"
        )
    if uncompared:
        yield (f"{uncompared:,} pairs of documents that the policy's order would compare are not compared here")


def _find_tokens(folder: RunFolder, recipe: Recipe, *, same_documents: bool) -> _Found:
    """The store of the recipe's tokenizer, else the run's. A tokenizer that is trained depends on the documents too."""
    run = str(require_step(folder, "tokenize").result["tokenizer"])
    entries = require_step(folder, "vocabulary").result["vocabulary"]["size"]
    by_run = f"tokens are counted by the run's tokenizer ({entries:,} entries)"
    if recipe.tokenizer.load is None or recipe.tokenizer.of_documents:
        request = dataclasses.replace(saved_request(folder.root), recipe=recipe.path)
        same = plan_vocabulary(request, folder).identity == require_step(folder, "vocabulary").identity
        if same and same_documents:
            return _Found(folder.tokens(run), own=True)
        return _Found(folder.tokens(run), (f"{by_run}; a run would train one as the recipe says: estimates",))
    loaded = load_tokenizer(
        policy_folder(recipe) / recipe.tokenizer.load,
        end_of_document=recipe.tokenizer.end_of_document,
        scheme=recipe.tokenizer.scheme,
    )
    identity = arranged(recipe, loaded).vocabulary.tokenizer_hash
    if identity == run:
        return _Found(folder.tokens(run), own=True)
    if find_manifest(folder.tokens(identity)):
        return _Found(
            folder.tokens(identity), ("tokens are those of the recipe's tokenizer, stored by an earlier run",)
        )
    return _Found(folder.tokens(run), (f"{by_run}, not by `{recipe.tokenizer.load}`: estimates",))

"""Plans by another policy or tokenizer: judged as a run would, with a note on all that is not the run's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.licences import hold_back
from mixtures.plan import MixturePlan, plan_mixture
from mixtures.policy import load_policy
from mixtures.recipe import load_recipe
from pipelines.foresight import foresee_corpus
from pipelines.request import REQUEST_FILE, RunRequest
from pipelines.run_folder import RunFolder, StepRecord, write_step
from pipelines.steps import plan_vocabulary
from storage.errors import RecipeError
from storage.manifests import open_dataset
from tests.mixtures.tiny_run import Doc, Run, doc_id
from tests.pipelines.dedup.searching import found_by_hand, publish_found

TOKENIZER = "0" * 32
POLICY = """\
format_version: 1
name: {name}
rules:
  - {{rule: too_few_words, measure: rules.num_words, min: {words}}}
  - {{rule: near_duplicate, duplicates: near, min_similarity: {similarity}, keep: {{best: [rules.num_words {order}]}}}}
"""
RECIPE = """\
format_version: 1
name: all
seed: 1
policy: {policy}
tokenizer: {{train: {{vocabulary_size: {entries}}}}}
heldout: {{tokens: 0}}
sources:
  - {{name: all, where: 'true'}}
"""
DOCS = [Doc(f"d{i}", words=10 * i, tokens=11, text="x" * 10) for i in range(9)]
NEAR = [("d5", "d6", 0.95), ("d7", "d8", 0.85)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def folder(tmp_path: Path, write: Callable[[str, str], Path]) -> RunFolder:
    """A run by a policy that keeps those of 30 words and more, the longer of near-duplicates from 0.8 on."""
    write("policy.yaml", POLICY.format(name="own", words=30, similarity=0.8, order="desc"))
    recipe = write("recipe.yaml", RECIPE.format(policy="policy.yaml", entries=500))
    run = Run(tmp_path / "run", DOCS, 4)
    folder = RunFolder(run.root)
    request = RunRequest(out=str(run.root), recipe=str(recipe))
    (run.root / REQUEST_FILE).write_text(json.dumps({"request": request.to_json()}))
    _write_found(folder)
    dropped = [("d5", "d6", 0.95), ("d7", "d8", 0.85)]
    kinds = {"duplicate_of": [doc_id(other) for _, other, _ in dropped], "kind": ["near"] * 2}
    duplicates = pa.table(
        {"doc_id": [doc_id(one) for one, _, _ in dropped], "similarity": [score for _, _, score in dropped], **kinds}
    )
    policy = hold_back(load_policy("policy.yaml", beside=tmp_path), None)
    run.judge(policy, duplicates)
    run.tokenize()
    shutil.move(run.root / "tokens", run.root / "stored")
    shutil.move(run.root / "stored", folder.tokens(TOKENIZER))
    _record(folder, "judge", {"policy": policy.identity(), "identity": "j", "documents": 9, "kept": 4})
    _record(folder, "tokenize", {"tokenizer": TOKENIZER})
    made = {"tokenizer": TOKENIZER, "vocabulary": {"size": 500}}
    _record(folder, "vocabulary", made, plan_vocabulary(request, folder).identity)
    return folder


def _record(folder: RunFolder, step: str, result: dict[str, object], identity: str = "") -> None:
    write_step(folder, StepRecord(step=step, identity=identity, result=result, costs={}))


def _write_found(folder: RunFolder) -> None:
    places = {doc_id(doc.name): (i // 4 << 32) | i % 4 for i, doc in enumerate(DOCS)}
    found = found_by_hand(places, [(doc_id(one), doc_id(two), score) for one, two, score in NEAR], [])
    checksums = [part.of for part in open_dataset(folder.catalogue).parts]
    publish_found(folder.duplicates, found, checksums)


def plan(folder: RunFolder, recipe: Path, policy: Path | None = None) -> MixturePlan:
    with foresee_corpus(folder, load_recipe(str(recipe)), str(policy) if policy else None) as corpus:
        return plan_mixture(load_recipe(str(recipe)), corpus)


def test_the_runs_own_recipe_is_planned_without_a_note(folder: RunFolder, tmp_path: Path) -> None:
    found = plan(folder, tmp_path / "recipe.yaml")
    assert found.notes == () and found.sources[0].documents == 4


def test_another_policy_is_judged_on_what_the_run_measured(
    folder: RunFolder, tmp_path: Path, write: Callable[[str, str], Path]
) -> None:
    other = write("other.yaml", POLICY.format(name="other", words=20, similarity=0.9, order="asc"))
    before = sorted(path for path in folder.root.rglob("*"))
    recipe = write("second.yaml", RECIPE.format(policy="other.yaml", entries=500))
    for found in (plan(folder, recipe), plan(folder, tmp_path / "recipe.yaml", other)):
        assert found.policy_identity == hold_back(load_policy(str(other)), None).identity()
        assert found.sources[0].documents == 6, "d2 to d8 without d6, of which d5 is the shorter near-duplicate"
        assert found.notes[0] == (
            "documents are judged by `other` for this plan: it keeps 6 of 9, the run's policy `own` kept 4"
        )
        assert "by the run's tokenizer (500 entries); a run would train one" in found.notes[1]
    assert sorted(path for path in folder.root.rglob("*")) == before, "nothing is written into the run"


def test_a_search_that_did_not_go_so_far_is_said(folder: RunFolder, write: Callable[[str, str], Path]) -> None:
    write("other.yaml", POLICY.format(name="other", words=20, similarity=0.7, order="asc"))
    notes = plan(folder, write("second.yaml", RECIPE.format(policy="other.yaml", entries=500))).notes
    assert any("from a similarity of 0.7, this run searched from 0.8" in note for note in notes)


def test_what_was_not_measured_is_said_and_the_runs_policy_stands_in(
    folder: RunFolder, write: Callable[[str, str], Path]
) -> None:
    text = POLICY.format(name="other", words=20, similarity=0.9, order="asc").replace("rules.num_words,", "tox.score,")
    write("other.yaml", text)
    found = plan(folder, write("second.yaml", RECIPE.format(policy="other.yaml", entries=500)))
    assert found.sources[0].documents == 4
    assert found.notes[0].startswith("documents are judged by the run's policy `own`, not by `other`: `tox.score`")
    assert "no stage `tox` has measured" in found.notes[0]


def test_another_tokenizer_makes_the_counts_estimates(folder: RunFolder, write: Callable[[str, str], Path]) -> None:
    (note,) = plan(folder, write("second.yaml", RECIPE.format(policy="policy.yaml", entries=900))).notes
    assert note.startswith("tokens are counted by the run's tokenizer (500 entries)") and note.endswith("estimates")


def test_a_loaded_tokenizer_is_counted_by_its_own_store_if_there_is_one(
    folder: RunFolder, tmp_path: Path, write: Callable[[str, str], Path]
) -> None:
    from tokenizer.training import TrainingConfig, train_tokenizer
    from tokenizer.vocabulary import load_tokenizer

    (tmp_path / "t.json").write_bytes(train_tokenizer([pa.array(["some text to train on"])], TrainingConfig(size=300)))
    text = RECIPE.format(policy="policy.yaml", entries=500)
    recipe = write("second.yaml", text.replace("{train: {vocabulary_size: 500}}", "{load: t.json}"))
    (note,) = plan(folder, recipe).notes
    assert note.endswith("not by `t.json`: estimates")
    shutil.copytree(
        folder.tokens(TOKENIZER), folder.tokens(load_tokenizer(tmp_path / "t.json").vocabulary.tokenizer_hash)
    )
    (note,) = plan(folder, recipe).notes
    assert note == "tokens are those of the recipe's tokenizer, stored by an earlier run"


def test_a_policy_that_the_run_was_given_stands_for_the_recipes(
    folder: RunFolder, tmp_path: Path, write: Callable[[str, str], Path]
) -> None:
    request = json.loads((folder.root / REQUEST_FILE).read_text())
    request["request"]["policy"] = str(tmp_path / "policy.yaml")
    request["request"]["recipe"] = str(write("recipe.yaml", RECIPE.format(policy="gopher", entries=500)))
    (folder.root / REQUEST_FILE).write_text(json.dumps(request))
    found = plan(folder, tmp_path / "recipe.yaml")
    assert found.policy_identity == hold_back(load_policy(str(tmp_path / "policy.yaml")), None).identity()


def test_a_policy_that_is_none_is_an_error(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        plan(folder, tmp_path / "recipe.yaml", tmp_path / "absent.yaml")

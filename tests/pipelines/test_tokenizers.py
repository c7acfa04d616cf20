"""Tokenizers of a run: trained or cut down on its documents, and shown by `gristmill tokenizer`."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer

from pipelines.cli import cli
from pipelines.jobs.vocabulary import make_vocabulary
from pipelines.run_folder import StepRecord, write_step
from storage.errors import InputError, RecipeError
from tests.stored_run import DOCS, StoredRun, make_stored_run, tokenizer
from tokenizer.encode import Encoder
from tokenizer.training import TrainingConfig, train_by_reference
from tokenizer.vocabulary import load_tokenizer, read_vocabulary

RECIPE = """\
format_version: 1
name: grains
seed: 1
policy: policy.yaml
tokenizer: {tokenizer}
heldout: {{share: 0.1}}
sources:
  - {{name: web, where: source = 'web'}}
  - {{name: wiki, where: source = 'wiki'}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    made = make_stored_run(tmp_path_factory.mktemp("stored"))
    result = {"tokenizer": tokenizer().vocabulary.tokenizer_hash}
    write_step(made.folder, StepRecord(step="vocabulary", identity="v", result=result, costs={}))
    return made


def make(run: StoredRun, tmp_path: Path, settings: str) -> tuple[dict[str, object], bytes]:
    """What the job says, and the `tokenizer.json` that it wrote."""
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(tokenizer=settings))
    (tmp_path / "t.json").write_bytes(tokenizer().data)
    policy = run.corpus.verdicts.folder.parent.name
    arguments = {"root": str(run.folder.root), "recipe": str(tmp_path / "recipe.yaml"), "policy": policy}
    made = make_vocabulary(arguments)
    return made, read_vocabulary(run.folder.vocabulary(made["tokenizer"])).data


def gristmill(*arguments: object) -> str:
    return CliRunner().invoke(cli, ["tokenizer", *map(str, arguments)], catch_exceptions=False).output


class TestJob:
    def test_it_trains_on_what_the_policy_kept(self, run: StoredRun, tmp_path: Path) -> None:
        made, data = make(run, tmp_path, "{train: {vocabulary_size: 400, digits: 3, special_tokens: [<a>, <b>]}}")
        config = TrainingConfig(size=400, max_digits=3, special_tokens=("<a>", "<b>"))
        kept = [doc.text for doc in DOCS if doc.words != 1]
        assert data == train_by_reference([pa.array(kept)], config)
        sizes = {
            name: sum(len(d.text.encode()) for d in DOCS if d.source == name and d.words != 1)
            for name in ("web", "wiki")
        }
        assert made["sample_bytes"] == sizes

    def test_a_balance_draws_less_of_one_group(self, run: StoredRun, tmp_path: Path) -> None:
        settings = "{train: {vocabulary_size: 400, sample: 1000, balance: {web: 1, wiki: 3}, balance_by: source}}"
        given = make(run, tmp_path, settings)[0]["sample_bytes"]
        assert isinstance(given, dict)
        assert 250 <= given["web"] < 500 and 750 <= given["wiki"] < 1000

    def test_it_keeps_the_most_frequent_of_a_loaded_one(self, run: StoredRun, tmp_path: Path) -> None:
        made, data = make(run, tmp_path, "{load: t.json, keep: 300}")
        assert made["vocabulary"]["size"] == 300 and made["sample_bytes"]["web"] > 0  # type: ignore[index]
        assert Tokenizer.from_str(data.decode()).token_to_id("<|endoftext|>") == 0

    def test_one_that_is_loaded_is_as_it_was(self, run: StoredRun, tmp_path: Path) -> None:
        made, data = make(run, tmp_path, "{load: t.json}")
        assert data == tokenizer().data and made["sample_bytes"] == {}

    def test_a_balance_of_nothing_that_is_there_is_refused(self, run: StoredRun, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="nothing to train a tokenizer on"):
            make(run, tmp_path, "{train: {vocabulary_size: 400, balance: {fr: 1}}}")


class TestSurvey:
    def test_the_run_is_shown_by_language_and_source(self, run: StoredRun) -> None:
        shown = gristmill("survey", "--out", run.folder.root)
        encoder = Encoder(tokenizer(), fast=False)
        tokens = sum(len(encoder.encode(pa.array([doc.text])).ids) for doc in DOCS if doc.source == "wiki")
        (wiki,) = (line.split() for line in shown.splitlines() if line.startswith("wiki"))
        assert wiki[:2] == ["wiki", "9"] and str(tokens) in wiki
        assert "every text comes back unchanged" in shown
        assert "never came up" in shown

    def test_as_json(self, run: StoredRun) -> None:
        values = json.loads(gristmill("survey", run.vocabulary / "tokenizer.json", "--out", run.folder.root, "--json"))
        assert values["all"]["documents"] == len(DOCS)
        assert values["entries"] == tokenizer().vocabulary.size
        assert list(values["language"]) == ["en"]

    def test_a_small_sample_is_the_same_every_time(self, run: StoredRun) -> None:
        shown = [gristmill("survey", "--out", run.folder.root, "--sample", 1500, "--json") for _ in range(2)]
        assert shown[0] == shown[1]
        assert 0 < json.loads(shown[0])["all"]["documents"] < len(DOCS)

    def test_an_empty_sample_is_refused(self, run: StoredRun) -> None:
        with pytest.raises(InputError, match="sample of 0 bytes"):
            gristmill("survey", "--out", run.folder.root, "--sample", 0)


def test_a_tiktoken_file_is_converted_once(tmp_path: Path) -> None:
    file = tmp_path / "cl100k_base.tiktoken"
    file.write_text("".join(f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256)))
    assert "257 entries" in gristmill("convert", file, tmp_path / "made")
    assert load_tokenizer(tmp_path / "made").data == load_tokenizer(file).data
    with pytest.raises(InputError, match="there is a tokenizer here already"):
        gristmill("convert", file, tmp_path / "made")

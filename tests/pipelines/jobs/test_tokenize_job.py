"""The tokenize job's tasks, called as Ray calls them: what the recipe's sources ask is in the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixtures.policy import Policy
from mixtures.yaml_files import load_yaml
from pipelines.jobs.tokenize import tokenize_part
from pipelines.jobs.vocabulary import make_vocabulary
from pipelines.run_folder import RunFolder
from storage.parts import part_from_json, part_to_json
from tests.mixtures.tiny_run import KEEP_ALL, Doc, Run
from tests.stored_run import text_of, tokenizer
from tokenizer.encode import Encoder
from tokenizer.store import open_store, publish_store
from tokenizer.vocabulary import read_vocabulary

DOCS = [Doc(f"d{i}", source="code" if i % 2 else "web", text=text_of(i + 9)) for i in range(40)]
RECIPE = """\
format_version: 1
name: code
seed: 1
policy: policy.yaml
tokenizer: {load: coder.json}
sources:
  - {name: web, where: source = 'web'}
  - {name: code, where: source = 'code', fill_in_middle: {share: 0.5}}
"""


def write_tokenizer(path: Path) -> None:
    settings = json.loads(tokenizer().data)
    for number, token in enumerate(("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), tokenizer().vocabulary.size):
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        settings["added_tokens"].append({"id": number, "content": token, **flags})
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "tokenizer_asked",
    [
        "{load: coder.json}",
        "{train: {vocabulary_size: 400}}",
        "{train: {vocabulary_size: 400}, fill_in_middle: [<a>, <b>, <c>]}",
        "{train: {vocabulary_size: 400, special_tokens: [<fim_prefix>, <fim_suffix>, <fim_middle>]}}",
    ],
)
def test_the_sources_that_ask_are_rearranged(tmp_path: Path, tokenizer_asked: str) -> None:
    write_tokenizer(tmp_path / "coder.json")
    (tmp_path / "policy.yaml").write_text(KEEP_ALL)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("{load: coder.json}", tokenizer_asked))
    run, folder = Run(tmp_path / "run", DOCS, 15), RunFolder(tmp_path / "run")
    policy = load_yaml(tmp_path / "policy.yaml", Policy)
    run.judge(policy)
    told = {"root": str(folder.root), "recipe": str(tmp_path / "recipe.yaml"), "policy": policy.identity()}
    made = make_vocabulary(told)["tokenizer"]
    parts = [
        tokenize_part({**told, "tokenizer": made, "part": part_to_json(part)})["part"] for part in run.documents.parts
    ]
    vocabulary = read_vocabulary(folder.vocabulary(made))
    publish_store(folder.tokens(made), vocabulary.vocabulary, map(part_from_json, parts))
    store, encoder = open_store(folder.tokens(made)), Encoder(vocabulary, fast=False)
    middle = vocabulary.vocabulary.fill_in_middle
    moved = {"web": 0, "code": 0}
    for doc in DOCS:
        location = store.find(doc.doc_id)
        assert middle and location and store.decode(location, encoder) == doc.text
        moved[doc.source] += int(store.tokens(location)[0]) == middle.begin
    assert moved["web"] == 0 and 4 < moved["code"] < 16

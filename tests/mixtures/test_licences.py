"""Licences: which are known to be permissive, and that what is not is measured, told, and in no shard."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mixtures.held_back import held_back_lines
from mixtures.licences import classify, hold_back, is_permissive
from mixtures.plan import plan_mixture
from mixtures.policy import Policy
from mixtures.recipe import load_recipe
from mixtures.yaml_files import load_yaml
from storage.errors import RecipeError
from storage.manifests import open_dataset
from tests.mixtures.tiny_run import KEEP_ALL, Doc, Run, name_of

PERMISSIVE = """
MIT; Apache-2.0; apache 2.0; Apache License, Version 2.0; BSD-3-Clause; 3-clause BSD; BSD 3-Clause "New" or "Revised"
License; 0BSD; ISC; CC0-1.0; CC0; cc-zero; CC-BY-4.0; CC BY-SA 3.0; cc-by-sa-3.0-igo; Creative Commons Attribution 4.0
International; Creative Commons Attribution-ShareAlike 3.0 Unported; https://creativecommons.org/licenses/by/4.0/;
http://creativecommons.org/publicdomain/zero/1.0/; Public Domain; public domain mark 1.0; ODC-By; ODC-BY-1.0; ODbL-1.0;
GFDL-1.3-or-later; CC-BY-SA-4.0 AND GFDL-1.3-only; MIT OR GPL-3.0-only; Apache-2.0 WITH LLVM-exception; Unlicense;
etalab-2.0; OGL-UK-3.0; (MIT AND ISC)
"""
RESTRICTED = """
CC-BY-NC-4.0; CC BY-NC-SA 3.0; CC-BY-ND-4.0; Creative Commons Attribution-NonCommercial 4.0; Creative Commons
Attribution Non-Commercial No-Derivatives; https://creativecommons.org/licenses/by-nc-nd/2.0/fr/; GPL-3.0-only;
AGPL-3.0; MPL-2.0; MIT AND GPL-3.0-only; (MIT OR GPL-2.0-only) AND GPL-3.0-only; all rights reserved; other;
unknown; proprietary; openrail; llama3; Creative Commons; CC; not MIT; see MIT
"""


@pytest.mark.parametrize("name", [" ".join(name.split()) for name in PERMISSIVE.split(";")])
def test_permissive(name: str) -> None:
    assert is_permissive(name)


@pytest.mark.parametrize("name", [" ".join(name.split()) for name in RESTRICTED.split(";")])
def test_not_known_to_be_permissive(name: str) -> None:
    assert not is_permissive(name)


def test_classes_are_null_where_nothing_is_stated() -> None:
    found = classify(pa.array(["MIT", None, "", "CC-BY-NC-4.0", "MIT"]))
    assert found.to_pylist() == ["permissive", None, None, "restricted", "permissive"]


DOCS = [
    Doc("a"), Doc("b", licence="CC-BY-4.0"), Doc("c", licence="CC-BY-NC-4.0", source="forum", text="x" * 50),
    Doc("d", licence="Mine", source="forum"), Doc("e", licence="CC-BY-NC-4.0", source="forum", words=1),
    Doc("f", metadata_only=True), Doc("g", metadata_only=True, words=1),
]  # fmt: skip
RECIPE = """
format_version: 1
name: all
seed: 1
policy: web_default
tokenizer: {load: t.json}
heldout: {tokens: 0}
sources: [{name: all, where: "true"}]
"""


def write_recipe(folder: Path) -> str:
    (folder / "recipe.yaml").write_text(RECIPE)
    return str(folder / "recipe.yaml")


def judged(folder: Path, allowed: object) -> tuple[Run, Policy]:
    run = Run(folder / "run", DOCS, 3)
    (folder / "policy.yaml").write_text(KEEP_ALL)
    return run, hold_back(load_yaml(folder / "policy.yaml", Policy), allowed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("allowed", "kept"),
    [(None, "ab"), (("cc-by-nc-4.0",), "abc"), (("CC-BY-NC-4.0", "mine"), "abcd"), ("any", "abcd")],
)
def test_what_is_held_back_has_its_reason_and_no_token(tmp_path: Path, allowed: object, kept: str) -> None:
    run, policy = judged(tmp_path, allowed)
    corpus = run.corpus(policy)
    verdicts = pa.concat_tables([corpus.verdicts.read(part) for part in corpus.verdicts.parts])
    decided = {name_of(row["doc_id"]): row["rule"] for row in verdicts.to_pylist()}
    restricted = {name: "licence_not_permissive" for name in "cd" if name not in kept}
    assert decided == {
        **dict.fromkeys(kept), **restricted, "e": "too_few_words", "f": "metadata_only", "g": "too_few_words"
    }  # fmt: skip
    rows = [row for rows in corpus.rows(load_recipe(write_recipe(tmp_path)), placed=True) for row in rows.places.doc_id]
    assert "".join(sorted(name_of(row.as_py()) for row in rows)) == kept


def test_the_ledger_says_which_licence_it_was(tmp_path: Path) -> None:
    run, policy = judged(tmp_path, None)
    ledger = open_dataset(run.judge(policy) / "reasons")
    reasons = [row for part in ledger.parts for row in ledger.read(part).to_pylist()]
    evidence = {name_of(row["doc_id"]): row["evidence"] for row in reasons if row["rule"] == "licence_not_permissive"}
    assert evidence["d"] == "licence_class=restricted, licence=Mine" and "licence=CC-BY-NC-4.0" in evidence["c"]


def test_the_plan_tells_the_partition(tmp_path: Path) -> None:
    run, policy = judged(tmp_path, None)
    plan = plan_mixture(load_recipe(write_recipe(tmp_path)), run.corpus(policy))
    told = [(held.source, held.licence, held.rule, held.documents, held.text_bytes) for held in plan.held_back]
    assert told == [
        ("forum", "CC-BY-NC-4.0", "licence_not_permissive", 1, 50),
        ("forum", "Mine", "licence_not_permissive", 1, 9),
        ("web", None, "metadata_only", 1, 9),
    ]
    lines = held_back_lines(plan.held_back)
    assert lines[-1] == "to train on them: `allow_licences: [CC-BY-NC-4.0, Mine]` in the recipe"
    assert "not stated" in lines[-2] and plan.held_back[0].estimated_tokens == round(50 * 77 / 104)


def test_a_rule_of_the_same_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(KEEP_ALL.replace("too_few_words", "metadata_only"))
    with pytest.raises(RecipeError, match="has a rule `metadata_only`"):
        hold_back(load_yaml(tmp_path / "policy.yaml", Policy), None)

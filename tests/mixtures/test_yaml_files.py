"""YAML files: every fault with its line, all at once; hostile files end in an error, quickly."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from mixtures.policy import Policy, load_policy
from mixtures.recipe import Recipe, load_recipe
from mixtures.yaml_files import load_yaml, parse_count
from storage.errors import RecipeError

Write = Callable[..., Path]

GOOD = """
format_version: 1
name: small
seed: 7
policy: web_default
tokenizer:
  train: {vocabulary_size: 8k}
sources:
  - name: web
    where: source = 'web'
    weight: 1
"""


def refuse(path: Path) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_yaml(path, Recipe)
    return caught.value


def test_a_good_file_becomes_a_frozen_recipe_that_knows_its_lines(write_yaml: Write) -> None:
    recipe = load_yaml(write_yaml(GOOD), Recipe)
    assert recipe.tokenizer.train is not None and recipe.tokenizer.train.vocabulary_size == 8000
    assert recipe.at("sources", 0, "where").endswith("file.yaml:9")
    assert recipe.at("sources", 0, "max_epochs").endswith("file.yaml:8")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_a_file_named_from_this_folder_is_found_from_another(
    write_yaml: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs run elsewhere: what they are told is `path`, while people read `file`."""
    written = write_yaml(GOOD)
    monkeypatch.chdir(written.parent)
    recipe = load_yaml(Path(written.name), Recipe)
    (tmp_path / "link.yaml").symlink_to(written)
    linked = load_yaml(tmp_path / "link.yaml", Recipe)
    assert recipe.file == written.name
    monkeypatch.chdir("/")
    assert Path(recipe.path) == Path(linked.path) == written.resolve() and recipe.folder == written.parent.resolve()


def test_every_fault_is_said_at_once_each_with_its_line(write_yaml: Write) -> None:
    text = GOOD.replace("weight: 1", "wieght: 1\n    max_epochs: 0").replace("seed: 7", "seed: many")
    error = str(refuse(write_yaml(text)))
    assert "3 things are wrong" in error
    assert 'file.yaml:3: `seed` is "many"' in error
    assert "file.yaml:10: unknown key `wieght` (did you mean `weight`?)" in error
    assert "file.yaml:11: `max_epochs` is 0" in error


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("  train: {vocabulary_size: 8k}", "  train: {vocab: 8k, vocabulary_size: 8k}", 6, "vocabulary_size"),
        ("seed: 7", "seed: 7\nzzz: 3", 4, "keys here: allow_licences, description, epochs, "),
        ("    weight: 1", "    weight: 0", 10, "0 takes nothing: remove the source"),
        ("    weight: 1", "    weight: -2", 10, "-2 takes nothing"),
        ("    weight: 1", "    tokens: -5", 10, "-5 takes nothing"),
        ("    weight: 1", "    weight: .inf", 10, "finite"),
        ("    weight: 1", "    weight: '1'", 10, "valid number"),
        ("    weight: 1", "    weight: true", 10, "valid number"),
        ("    weight: 1", "    weight: 1\n    tokens: 5", 8, "`weight` and `tokens`"),
        ("  - name: web", "  - name: Web Pages", 8, '`name` is "Web Pages"'),
        ("  - name: web", "  - title: web", 8, "`name` is missing"),
        ("policy: web_default", "policy: 3", 4, "valid string"),
        ("seed: 7", "seed: 7\nseed: 8", 4, "twice"),
        ("seed: 7", "seed: [1", 4, "not YAML"),
        ("seed: 7", "seed: !!python/object:os.system {}", 3, "`tag:yaml.org,2002:python/object:os.system`"),
        ("seed: 7", "seed: 2020-01-01", 3, "valid integer"),
        ("seed: 7", "seed: " + "9" * 5000, 3, "digits"),
        ("format_version: 1", "format_version: 2", 1, "has format_version 2; this Gristmill reads 1"),
        ("format_version: 1\n", "", 1, "has no format_version"),
    ],
)
def test_a_fault_names_its_line_and_what_to_do(write_yaml: Write, old: str, new: str, line: int, words: str) -> None:
    error = refuse(write_yaml(GOOD.replace(old, new)))
    assert f"file.yaml:{line}" in str(error).replace(f"file.yaml:{line}0", ""), str(error)
    assert words in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just words",
        "- a list",
        "a: &x [*x]",
        "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))]),
        "a: " + "[" * 5000 + "]" * 5000,
        "a: b: c",
        "a: \tx\n\t- b",
        "{1: 2}: 3",
        "? [a]\n: b",
        "a: 1\n---\nb: 2",
        "a: \x00",
        "a: " + "x" * (1 << 20),
    ],
    ids=[
        "empty",
        "scalar",
        "list",
        "loop",
        "bomb",
        "deep",
        "nested",
        "tabs",
        "map-key",
        "list-key",
        "two",
        "nul",
        "large",
    ],
)
def test_a_hostile_file_is_refused(write_yaml: Write, text: str) -> None:
    refuse(write_yaml(text))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"name: \xff\xfe\x00bad")
    refuse(tmp_path / "x.yaml")


def test_norwegian_is_a_language_and_not_a_boolean(write_yaml: Write) -> None:
    limits = "{rule: low, measure: language.score, per: language.label, limits: {no: {min: 0.5}, other: {min: 0.6}}}"
    policy = load_yaml(write_yaml(f"format_version: 1\nname: p\nrules:\n  - {limits}"), Policy)
    assert set(policy.rules[0].limits or ()) == {"no", "other"}


def test_the_identity_is_of_what_the_file_says(write_yaml: Write) -> None:
    base = load_yaml(write_yaml(GOOD), Recipe).identity()
    same = GOOD.replace("name: small", "name: other\ndescription: again").replace("seed: 7", "seed: 7  # lucky")
    assert load_yaml(write_yaml(same, "elsewhere.yaml"), Recipe).identity() == base
    assert load_yaml(write_yaml(GOOD.replace("seed: 7", "seed: 8")), Recipe).identity() != base


def test_a_recipe_travels_to_another_process_with_its_lines(write_yaml: Write) -> None:
    recipe = load_yaml(write_yaml(GOOD), Recipe)
    assert pickle.loads(pickle.dumps(recipe)).at("seed") == recipe.at("seed")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2M", 2_000_000), ("1.5 B", 1_500_000_000), ("2_000", 2000), (3.0, 3), ("0.0001k", "0.0001k"), ("2m", "2m")],
)
def test_counts_are_read_as_people_write_them(text: object, expected: object) -> None:
    assert parse_count(text) == expected


def test_a_missing_file_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="web_default"):
        load_policy("web_defalt")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(tmp_path / "none.yaml"))
    assert "there is no recipe" in str(caught.value) and "web_wiki" in str(caught.value)


def test_a_policy_path_counts_from_the_recipe(write_yaml: Write, tmp_path: Path) -> None:
    recipe = load_yaml(write_yaml(GOOD.replace("web_default", "my.yaml")), Recipe)
    write_yaml("format_version: 1\nname: mine\nrules:\n  - {rule: a, measure: text_bytes, min: 1}", "my.yaml")
    assert load_policy(recipe.policy, beside=recipe.folder).name == "mine"

"""The search that a run makes: its option before the policy's rule, and no policy that counts what it cannot find."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixtures.policy import Gate, Policy, load_policy
from pipelines.dedup.parameters import DedupConfig, SemanticConfig, SignatureConfig
from pipelines.request import RunRequest
from pipelines.search import choose_search, search_of
from storage.errors import InputError, RecipeError

CCI4 = DedupConfig(signature=SignatureConfig(unit="characters", bands=25, rows=10), threshold=0.7)
DATATROVE = DedupConfig(signature=SignatureConfig(bands=14, rows=8), threshold=0.72)


def policy(folder: Path, near: str | None) -> Policy:
    """A policy with such a rule on near-duplicates."""
    rules = "  - {rule: short, measure: rules.num_words, min: 5}\n"
    rules += f"  - {{rule: alike, duplicates: near{near}}}\n" if near is not None else ""
    path = folder / "policy.yaml"
    path.write_text(f"format_version: 1\nname: p\nrules:\n{rules}")
    return load_policy(str(path))


@pytest.mark.parametrize(
    ("asked", "rule", "expected"),
    [
        (None, None, DedupConfig()),
        (None, "", DedupConfig()),
        ("cci4", None, CCI4),
        (None, ", search: {preset: cci4}", CCI4),
        ("datatrove", ", search: {preset: cci4}", DATATROVE),
        ("datatrove", ", min_similarity: 0.8", DATATROVE),
        ("default:bands=20,rows=5", "", DedupConfig(signature=SignatureConfig(bands=20, rows=5))),
    ],
)
def test_the_request_decides_before_the_policy(
    tmp_path: Path, asked: str | None, rule: str | None, expected: DedupConfig
) -> None:
    assert choose_search(asked, policy(tmp_path, rule)) == expected


def test_the_rest_of_a_preset_follows_what_is_changed_of_it(tmp_path: Path) -> None:
    least = policy(tmp_path, ", min_similarity: 0.9")
    assert choose_search(None, least).threshold == choose_search("default", least).threshold == 0.9
    assert choose_search(None, least).signature.rows > 7
    wide = choose_search("cci4:permutations=128,shingle_size=3", least)
    assert wide.signature == SignatureConfig(unit="characters", shingle_size=3, bands=14, rows=9)
    assert choose_search("datatrove:threshold=0.9", least).signature == DATATROVE.signature


@pytest.mark.parametrize("asked", ["cci4", "default:threshold=0.7", None])
def test_a_policy_that_counts_what_the_search_does_not_find_is_refused(tmp_path: Path, asked: str | None) -> None:
    rule = ", min_similarity: 0.6" + ("" if asked else ", search: {threshold: 0.7}")
    with pytest.raises(RecipeError) as caught:
        choose_search(asked, policy(tmp_path, rule))
    said = str(caught.value)
    assert "`alike`" in said and "similarity of 0.6" in said and "from 0.7 only" in said
    assert "policy.yaml:5" in said and "--near" in said


def test_a_policy_on_meaning_needs_a_search_that_finds_what_it_counts(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "format_version: 1\nname: p\nrules:\n  - {rule: said, duplicates: semantic, min_similarity: 0.92}\n"
    )
    rule = load_policy(str(path))
    with pytest.raises(RecipeError, match="does not look for") as missing:
        choose_search(None, rule)
    assert "--semantic 0.92" in str(missing.value)
    with pytest.raises(RecipeError, match=r"cosine of 0\.92, but the search records them from 0\.95 only"):
        choose_search(None, rule, SemanticConfig(threshold=0.95))
    assert choose_search(None, rule, SemanticConfig()).semantic == SemanticConfig()


def test_vectors_of_other_documents_are_another_search(tmp_path: Path) -> None:
    """A gate lets in what the measurements say: with others, vectors of the same parts are not those of before."""
    gated = policy(tmp_path, "")
    gated = gated.model_copy(update={"gate": Gate(rules=("short",))})
    plain, counted = RunRequest(semantic=0.9), RunRequest(semantic=0.9, repeated_lines="host:3")
    found = [search_of(request, gated) for request in (plain, plain, counted)]
    assert found[0] == found[1] != found[2]
    ungated = [search_of(request, policy(tmp_path, "")) for request in (plain, counted)]
    assert ungated[0] == ungated[1] != found[0]


def test_urls_are_looked_for_where_a_rule_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("format_version: 1\nname: p\nrules:\n  - {rule: older, duplicates: url}\n")
    assert choose_search(None, load_policy(str(path))).urls
    assert not choose_search(None, policy(tmp_path, None)).urls


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("minhash", "'default', 'datatrove' or 'cci4'"),
        ("cci4:unit", "`unit` is not OPTION=VALUE"),
        ("cci4:unit=bytes", "unit: "),
        ("cci4:colour=red", "colour: "),
        ("default:bands=7", "go together"),
        ("default:bands=7,rows=2,permutations=14", "`permutations` beside"),
        ("default:threshold=2", "threshold: "),
        ("default:permutations=many", "permutations: "),
        (":", "preset: "),
    ],
)
def test_what_is_no_search_is_refused_with_an_example(tmp_path: Path, asked: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_search(asked, policy(tmp_path, None))
    assert words in str(caught.value) and "--near cci4" in str(caught.value)


def test_a_search_in_a_rule_on_other_duplicates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "format_version: 1\nname: p\nrules:\n  - {rule: a, duplicates: exact, search: {preset: cci4}}\n"
    )
    with pytest.raises(RecipeError, match="`search` goes with `duplicates: near` only"):
        load_policy(str(tmp_path / "p.yaml"))

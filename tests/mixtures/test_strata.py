"""Stratified samples: every stratum has its share, within its cap, and the same documents are drawn again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mixtures.policy import load_policy
from mixtures.strata import SampleConfig, draw_sample
from storage.errors import InputError, SqlError
from tests.mixtures.tiny_run import KEEP_ALL, Doc, Run, name_of

DOCS = (
    [Doc(f"web{i}", text="x" * (100 if i % 2 else 5000)) for i in range(60)]
    + [Doc(f"zh{i}", label="zh") for i in range(30)]
    + [Doc(f"wiki{i}", source="wiki") for i in range(10)]
    + [Doc("short", words=1)]
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Path]]:
    """Catalogue and decisions of the same documents, cut into parts of 7 and of 1,000."""
    found = {}
    for rows in (7, 1000):
        root = tmp_path_factory.mktemp("run")
        (root / "policy.yaml").write_text(KEEP_ALL)
        run = Run(root, DOCS, rows)
        found[rows] = (root / "catalogue", run.judge(load_policy(str(root / "policy.yaml"))))
    return found


def drawn(places: tuple[Path, Path], **config: object) -> set[str]:
    rows = draw_sample(*places, SampleConfig(**config)).rows  # type: ignore[arg-type]
    return {name_of(doc_id) for doc_id in rows["doc_id"].to_pylist()}


def kinds(names: set[str]) -> Counter[str]:
    return Counter(name.rstrip("0123456789") for name in names)


def test_shares_are_those_of_the_strata(places: dict[int, tuple[Path, Path]]) -> None:
    assert kinds(drawn(places[7], documents=50)) == {"web": 30, "zh": 15, "wiki": 5}


def test_equal_shares_give_small_strata_as_much(places: dict[int, tuple[Path, Path]]) -> None:
    assert kinds(drawn(places[7], documents=20, share="equal")) == {"web": 10, "zh": 5, "wiki": 5}


def test_what_a_cap_cuts_off_goes_to_the_others(places: dict[int, tuple[Path, Path]]) -> None:
    assert kinds(drawn(places[7], documents=52, most=15)) == {"web": 30, "zh": 15, "wiki": 7}
    assert len(drawn(places[7], documents=1000, most=4)) == 16


def test_length_is_a_stratum(places: dict[int, tuple[Path, Path]]) -> None:
    sample = draw_sample(*places[7], SampleConfig(documents=20, where="source = 'web' AND language.label = 'en'"))
    assert [(s.at_least, s.under, s.documents, s.drawn) for s in sample.strata] == [
        (0, 1000, 30, 10),
        (4000, 16000, 30, 10),
    ]


def test_how_the_input_was_cut_does_not_matter(places: dict[int, tuple[Path, Path]]) -> None:
    assert drawn(places[7], documents=33) == drawn(places[1000], documents=33)


def test_the_seed_draws_others_and_a_larger_sample_the_same_and_more(places: dict[int, tuple[Path, Path]]) -> None:
    assert drawn(places[7], documents=20) != drawn(places[7], documents=20, seed=1)
    assert drawn(places[7], documents=20) < drawn(places[7], documents=40)


def test_rows_say_where_their_texts_are(places: dict[int, tuple[Path, Path]]) -> None:
    rows = draw_sample(*places[7], SampleConfig(documents=1000)).rows.to_pylist()
    assert [name_of(row["doc_id"]) for row in rows] == [DOCS[row["part"] * 7 + row["row"]].name for row in rows]
    assert len(rows) == 100


def test_what_the_policy_dropped_is_sampled_only_if_asked(places: dict[int, tuple[Path, Path]]) -> None:
    assert "short" not in drawn(places[7], documents=1000)
    assert "short" in drawn(places[7], documents=1000, kept_only=False)


def test_conditions_are_checked(places: dict[int, tuple[Path, Path]]) -> None:
    with pytest.raises(SqlError, match="languge"):
        drawn(places[7], where="languge.label = 'en'")
    with pytest.raises(InputError, match="no document"):
        drawn(places[7], where="source = 'nowhere'")

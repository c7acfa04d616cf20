"""Three hundred of the ten thousand damaged files of `make fuzz`, and that it would notice what it looks for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.fuzzing.cases import Outcome, outcomes, run_case
from benchmarks.fuzzing.formats import Format, all_formats
from benchmarks.fuzzing.mutations import Case, damaged

FORMATS = {form.name: form for form in all_formats()}
CASES_EACH = 14


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    return list(outcomes([(name, seed) for name in FORMATS for seed in range(20_000, 20_000 + CASES_EACH)]))


def test_no_damage_crashes_hangs_or_costs_other_records(found: list[Outcome]) -> None:
    assert len(found) >= 290
    assert not [one for one in found if one.fault]


def test_no_damage_takes_much_memory(found: list[Outcome]) -> None:
    assert max(one.peak_bytes for one in found) < 300_000_000


def test_damage_is_told(found: list[Outcome]) -> None:
    """Of every format some cases are damaged visibly, and what can still be read is."""
    counts: Counter[str] = Counter()
    for one in found:
        counts[f"{one.name}: documents"] += one.documents
        counts[f"{one.name}: told"] += one.failures + one.skipped + one.refused
    for name, form in FORMATS.items():
        assert counts[f"{name}: documents"] > 0
        assert counts[f"{name}: told"] > 0 or form.kind in ("html", "wikitext", "text"), name


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_seed_gives_one_case(form: Format) -> None:
    assert damaged(form, 7) == damaged(form, 7)
    assert len({damaged(form, seed).data for seed in range(20)}) > 15


def test_a_lost_record_is_noticed(tmp_path: Path) -> None:
    form = FORMATS["warc.gz"]
    whole = Case(data=form.build(form.pieces[1:]), touched=frozenset(), how="the first record left out")
    assert run_case(form, whole, 0, tmp_path).fault == "undamaged pieces [0] are lost"
    told = Case(data=whole.data, touched=frozenset({0}), how=whole.how)
    assert not run_case(form, told, 0, tmp_path).fault

"""Bands and rows: published values, and the recall that the default promises."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.dedup.parameters import (
    DedupConfig,
    SignatureConfig,
    candidate_probability,
    choose_bands,
    choose_bands_by_integral,
    near_duplicates,
)
from storage.errors import EnvironmentMismatch, RecipeError
from storage.identity import fingerprint


def test_default_is_what_choose_bands_gives_for_its_threshold() -> None:
    assert choose_bands(0.8, 112) == (16, 7)
    assert near_duplicates() == near_duplicates(0.8) == DedupConfig()


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_chosen_bands_reach_the_recall_and_one_row_more_does_not(threshold: float) -> None:
    bands, rows = choose_bands(threshold, 128)
    assert candidate_probability(threshold, bands, rows) >= 0.97
    assert bands * rows <= 128
    assert candidate_probability(threshold, 128 // (rows + 1), rows + 1) < 0.97


@pytest.mark.parametrize("preset", ["default", "cci4"])
@pytest.mark.parametrize(("threshold", "permutations"), [(1.0, None), (0.97, 4096), (0.1, 4096)])
def test_any_threshold_and_permutations_give_bands_and_rows_that_can_be_searched(
    preset: str, threshold: float, permutations: int | None
) -> None:
    """`min_similarity: 1` asked for one band of 112 rows, which no signature may have."""
    signature = near_duplicates(threshold, preset=preset, permutations=permutations).signature
    assert candidate_probability(threshold, signature.bands, signature.rows) >= 0.97 or preset == "cci4"


def test_too_few_permutations_are_refused_with_the_recall_that_they_give() -> None:
    with pytest.raises(RecipeError, match=r"2 permutations find at most 0\.190"):
        choose_bands(0.1, 2)


def test_integral_gives_the_published_values() -> None:
    assert choose_bands_by_integral(0.7, 256) == (25, 10)  # docstring of text-dedup's optimal_param
    cci4 = near_duplicates(preset="cci4")
    assert cci4.signature == SignatureConfig(unit="characters", shingle_size=5, bands=25, rows=10)
    assert cci4.threshold == 0.7


def test_datatrove_preset_finds_what_datatrove_documents() -> None:
    signature = near_duplicates(preset="datatrove").signature
    assert candidate_probability(0.8, signature.bands, signature.rows) == pytest.approx(0.924, abs=5e-4)


def test_candidate_probability_is_what_random_bands_do() -> None:
    chance = np.random.default_rng(5)
    same = chance.random((20_000, 16, 7)) < 0.8
    assert candidate_probability(0.8, 16, 7) == pytest.approx(same.all(axis=2).any(axis=1).mean(), abs=0.005)


@pytest.mark.parametrize("wrong", [{"unit": "bytes"}, {"bands": 0}, {"rows": 65}, {"shingle_size": 0}])
def test_signature_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        SignatureConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [0.0, 1.01, -1.0])
def test_threshold_outside_its_limits_is_refused(threshold: float) -> None:
    with pytest.raises(RecipeError, match=str(threshold)):
        DedupConfig(threshold=threshold)


def test_signatures_of_another_unicode_version_are_not_mixed_in() -> None:
    with pytest.raises(EnvironmentMismatch, match=r"Unicode 3\.2\.0"):
        SignatureConfig(unicode="3.2.0")


def test_threshold_does_not_change_the_signatures_identity() -> None:
    assert fingerprint(DedupConfig(threshold=0.9).signature) == fingerprint(DedupConfig().signature)
    assert fingerprint(SignatureConfig(seed=2)) != fingerprint(SignatureConfig())

"""The survey counts what a plain count gives."""

from __future__ import annotations

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, normalizers

from tokenizer.encode import Encoder
from tokenizer.survey import Tally, survey_json, survey_tokenizer
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer

TEXTS = [
    ("en", "web", "The miller's daughter counts 1234 sacks."),
    ("en", "wiki", "grain"),
    ("zh", "web", "磨坊主数着麻袋 ABC。"),
    ("hi", "web", "चक्की अनाज"),
    ("en", "web", ""),
]
WORDS = [7, 1, 8, 2, 0]


@pytest.fixture
def encoder(trained: TokenizerFile) -> Encoder:
    return Encoder(trained, fast=False)


def batches() -> list[tuple[list[tuple[str, ...]], pa.StringArray]]:
    return [
        ([row[:2] for row in rows], pa.array([row[2] for row in rows], pa.string())) for rows in (TEXTS[:2], TEXTS[2:])
    ]


def test_groups_and_their_sums(encoder: Encoder) -> None:
    survey = survey_tokenizer(encoder, batches())
    tokens = [len(encoder.encode(pa.array([text])).ids) for _, _, text in TEXTS]
    assert survey.along(0)["en"] == Tally(
        documents=3, bytes=len(TEXTS[0][2]) + 5, words=8, tokens=tokens[0] + tokens[1], changed=0
    )
    assert survey.along(1)["web"].documents == 4
    assert survey.total.words == sum(WORDS)
    assert survey.total.tokens == sum(tokens) == survey.counts.sum()
    assert survey.total.bytes_per_token == pytest.approx(sum(len(t.encode()) for _, _, t in TEXTS) / sum(tokens))


@pytest.mark.parametrize(("text", "words"), [(row[2], words) for row, words in zip(TEXTS, WORDS, strict=True)])
def test_words_are_counted_in_every_script(encoder: Encoder, text: str, words: int) -> None:
    assert survey_tokenizer(encoder, [([("x", "y")], pa.array([text], pa.string()))]).total.words == words


def test_unused_entries(encoder: Encoder) -> None:
    survey = survey_tokenizer(encoder, batches())
    used = {i for _, _, text in TEXTS for i in encoder.encode(pa.array([text], pa.string())).ids.tolist()}
    assert set(survey.unused(encoder.added_ids).tolist()) == set(range(1, encoder.vocabulary.size)) - used


def test_a_text_that_changes_is_counted(trained: TokenizerFile) -> None:
    tokenizer = Tokenizer.from_str(trained.data.decode())
    tokenizer.normalizer = normalizers.Lowercase()
    data = tokenizer.to_str().encode()
    survey = survey_tokenizer(Encoder(TokenizerFile(data, describe_tokenizer(data)), fast=False), batches())
    assert survey.total.changed == 2


def test_as_json(encoder: Encoder) -> None:
    values = survey_json(survey_tokenizer(encoder, batches()), ("language", "source"), encoder.added_ids)
    assert list(values) == ["all", "language", "source", "entries", "unused"]
    assert values["source"]["wiki"]["documents"] == 1
    assert values["all"]["tokens_per_word"] == pytest.approx(values["all"]["tokens"] / sum(WORDS), abs=1e-4)

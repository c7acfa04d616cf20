"""The report's section on scores, from a table whose figures are counted by hand."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipelines.report.page import render
from pipelines.report.scores import add_texts, describe_scores, wanted_texts
from storage.schema import IDENTIFIER

NUMBER = 40


def judged(**columns: Any) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect()
    table = pa.table(
        {
            "doc_id": pa.array([i.to_bytes(16, "big") for i in range(NUMBER)], IDENTIFIER),
            "source": ["web"] * NUMBER,
            "url": [f"https://example.org/{i}" for i in range(NUMBER)],
            "title": pa.nulls(NUMBER, pa.string()),
            "text_bytes": pa.array([100] * NUMBER, pa.int64()),
            "verdict": ["kept", "dropped"] * (NUMBER // 2),
            **columns,
        }
    )
    database.register("judged", table)
    return database


def scores(edu: list[float | None], dclm: list[float]) -> pa.Array:
    rows = [
        {
            "edu": {"value": one, "bucket": None if one is None else i // 2},
            "dclm": {"value": two, "bucket": 19 - (i - 5) % NUMBER // 2},
            "domain": {"label": "Science" if i < 10 else "<Sports>", "score": 0.75},
        }
        for i, (one, two) in enumerate(zip(edu, dclm, strict=True))
    ]
    valued = pa.struct([("value", pa.float32()), ("bucket", pa.int32())])
    classed = pa.struct([("label", pa.string()), ("score", pa.float32())])
    return pa.array(rows, pa.struct([("edu", valued), ("dclm", valued), ("domain", classed)]))


def test_figures_are_those_of_the_table() -> None:
    edu = [None, None, *(float(i) for i in range(2, NUMBER))]
    found = describe_scores(judged(scores=scores(edu, [-float(i // 4) for i in range(NUMBER)])), None, {"edu": "a/b"})
    assert found is not None
    first, second, together = found["histograms"]
    assert (first["name"], first["model"], first["documents"], first["bytes"]) == ("edu", "a/b", 38, 3800)
    assert first["shares"] == pytest.approx([0, *[2 / 38] * 19]) and first["empty"] == 1
    assert second["shares"] == pytest.approx([0.05] * 20) and second["empty"] == 0
    assert together["name"] == "ensemble.bucket" and together["most"] == max(together["shares"])
    assert (first["spread"]["least"], first["spread"]["most"]) == (2, 39)
    (agreement,) = found["agreement"]
    ranks = lambda values: np.array([np.mean(np.flatnonzero(np.sort(values) == v)) for v in values])  # noqa: E731
    ours, theirs = np.arange(2, NUMBER) // 2, np.roll(19 - np.arange(NUMBER) // 2, 5)[2:]
    assert agreement["documents"] == 38 and agreement["of_one"] == agreement["of_other"] == 0
    assert agreement["correlation"] == pytest.approx(np.corrcoef(ranks(ours), ranks(theirs))[0, 1])
    (domain,) = found["classes"]
    assert [(row["label"], row["documents"], row["bytes"], row["kept"]) for row in domain["rows"]] == [
        ("<Sports>", 30, 3000, 15),
        ("Science", 10, 1000, 5),
    ]
    best = next(example for example in found["examples"] if (example["name"], example["end"]) == ("edu", "best"))
    assert [int.from_bytes(row["doc_id"], "big") for row in best["rows"]] == [38, 39, 36]
    assert best["rows"][0]["told"] == {"edu": "19", "dclm": "3", "ensemble.bucket": "19", "domain": "<Sports>"}


def test_the_policys_ensemble_is_shown_and_the_page_escapes_what_it_shows() -> None:
    database = judged(scores=scores([float(i) for i in range(NUMBER)], [0.0] * NUMBER))
    found = describe_scores(database, {"bucket": "least(scores.edu.bucket, scores.dclm.bucket)"}, {})
    assert found is not None and found["histograms"][2]["empty"] > 0
    add_texts(found, {doc_id: {"excerpt": "<b>text</b>"} for doc_id in wanted_texts(found)})
    page = render(
        {
            "name": "run",
            "run": {"started_at": "", "python": "", "packages": {}},
            "funnel": [],
            "costs": [],
            "results": {},
            "scores": found,
        }
    )
    assert "&lt;Sports&gt;" in page and "&lt;b&gt;text" in page and "<Sports>" not in page
    assert "of 20 buckets are empty" in page


def test_without_scorers_there_is_no_section() -> None:
    assert describe_scores(judged(), None, {}) is None
    page = render(
        {
            "name": "run",
            "run": {"started_at": "", "python": "", "packages": {}},
            "funnel": [],
            "costs": [],
            "results": {},
            "scores": None,
        }
    )
    assert 'id="scores"' not in page

"""All that a run can measure, in one run: the same to the byte for any number of workers, and judged by one policy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.run_folder import RunFolder, require_step
from storage.manifests import open_dataset
from tests.classifiers.fluency.conftest import write_tiny_llama
from tests.corpus import english, url_of
from tests.flows.conftest import POLICY, Inputs, gristmill, run_options
from tests.flows.test_resume import fingerprints

MORE_RULES = """\
  - {rule: benchmark_item, measure: contamination.share, max: 0.8}
  - {rule: words_of_the_list, measure: word_lists.en, max: 0}
  - {rule: blocked, when: url_lists.is_listed_host OR url_lists.is_listed_domain}
  - {rule: reads_badly, measure: fluency.loss, max_percentile: 90, per: source, if_missing: fail}
  - {rule: not_c4, when: NOT c4_paragraph_filter.is_kept}
  - {rule: secrets, measure: privacy.credit_card, max: 0}
"""
MAIL = "Write to miller@mill-by-the-river.org today."


@pytest.fixture
def options(inputs: Inputs, tmp_path: Path) -> list[str]:
    planted = " ".join(english(6)[:3])
    (tmp_path / "bench.jsonl").write_text(json.dumps({"question": planted}) + "\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "en").write_text("zzyzx road\n")
    (tmp_path / "policy.yaml").write_text(POLICY + MORE_RULES)
    (tmp_path / "more.jsonl").write_text(
        "".join(
            json.dumps({"url": f"https://more.example.org/{name}", "text": text}) + "\n"
            for name, text in (
                ("mail", " ".join(english(901)) + " " + MAIL),
                ("listed", " ".join(english(902)) + " They took the Zzyzx road."),
                ("planted", " ".join(english(903)) + " " + planted.upper()),
            )
        )
    )
    model = write_tiny_llama(tmp_path / "llama")
    return [
        *("--jsonl", f"more={tmp_path / 'more.jsonl'}", "--policy", str(tmp_path / "policy.yaml")),
        *("--benchmarks", str(tmp_path / "bench.jsonl"), "--fluency-model", str(model)),
        *("--measure", f"word_lists:path={tmp_path / 'lists'}", "--measure", "url_lists"),
        *("--measure", "datatrove:block=C4ParagraphFilter", "--rewrite", "mask_privacy"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_everything_at_once(inputs: Inputs, prefect_home: Path, tmp_path: Path, options: list[str]) -> None:
    folders = []
    for workers in ("1", "2"):
        folder = RunFolder(tmp_path / f"run-{workers}")
        gristmill(*run_options(inputs, folder.root, *options, "--workers", workers), home=prefect_home, timeout=700)
        folders.append(folder)
    assert fingerprints(folders[0]) == fingerprints(folders[1])
    folder = folders[0]
    assert require_step(folder, "fluency").result["documents"]
    failed = _failed(folder)
    assert failed["https://more.example.org/listed"] >= {"words_of_the_list"}
    assert failed["https://more.example.org/planted"] >= {"benchmark_item"}
    assert failed[url_of(6)] >= {"benchmark_item"}
    assert any("reads_badly" in rules for rules in failed.values())
    assert "words_of_the_list" not in failed.get("https://more.example.org/mail", set())
    story = gristmill("why", "https://more.example.org/mail", "--out", str(folder.root), home=prefect_home).stdout
    assert "mask_privacy" in story and "fluency" in story
    page = folder.report.read_text(encoding="utf-8")
    assert re.search(r'id="contamination".*<td>bench</td><td>1</td><td>1</td><td>1</td><td>\d</td>', page, re.DOTALL)
    assert re.search(r'id="fluency".*<td>more</td><td>3</td>', page, re.DOTALL)
    documents = open_dataset(folder.documents)
    texts = [row for part in documents.parts for row in documents.read(part, ["text"])["text"].to_pylist()]
    assert not any("miller@" in text for text in texts)


def _failed(folder: RunFolder) -> dict[str, set[str]]:
    """The failing rules of each document, by URL."""
    documents = open_dataset(folder.documents)
    rows = pa.concat_tables([documents.read(part, ["doc_id", "url"]) for part in documents.parts]).to_pylist()
    urls = {row["doc_id"]: row["url"] for row in rows}
    reasons = open_dataset(folder.decisions(require_step(folder, "judge").result["policy"]) / "reasons")
    failed: dict[str, set[str]] = {}
    for part in reasons.parts:
        for row in reasons.read(part, ["doc_id", "rule"]).to_pylist():
            failed.setdefault(urls[row["doc_id"]], set()).add(row["rule"])
    return failed

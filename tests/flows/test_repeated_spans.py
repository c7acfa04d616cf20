"""A run whose repeated passages are cut: measured anew, told by `why`, and undone when they are not asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.funnel import funnel_rows
from pipelines.run_folder import RunFolder, require_step
from storage.manifests import align, open_dataset
from tests.flows.conftest import Inputs, gristmill, run_options

PASSAGE = (
    "The old mill by the river was built many years before the railway came through the valley, they say, and it ground"
    " the rye of nine parishes until the winter in which the ice took the wheel, the weir and half of the barn."
)
OWN = tuple(
    " ".join(f"In {year} the {what} was open on day {year % 29}." for year in range(1900, 1915))
    for what in ("school", "market")
)
URLS = ("https://a.mill.example.org/1", "https://b.mill.example.org/2")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_repeated_passage_from_ingest_to_story(inputs: Inputs, prefect_home: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.jsonl"
    rows = [{"url": url, "text": f"{own}\n\n{PASSAGE}"} for url, own in zip(URLS, OWN, strict=True)]
    extra.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder, home = RunFolder(tmp_path / "run"), prefect_home
    options = run_options(inputs, folder.root, "--jsonl", f"extra={extra}", "--part-megabytes", "1")
    asked = ("--repeated-spans", "substring:200", "--repeated-lines", "corpus:2")
    rewrites = ("--rewrite", "simplify_chinese", "--rewrite", "remove_repeated_spans")
    gristmill(*options, *asked, *rewrites, home=home, timeout=400)
    documents = open_dataset(folder.documents)
    assert documents.folder == folder.cut
    for attributes in (folder.repeated, folder.measured, folder.quality, folder.catalogue):
        assert align(documents, open_dataset(attributes))
    texts = {row["url"]: row["text"] for part in documents.parts for row in documents.read(part).to_pylist()}
    assert sum(PASSAGE.strip() in texts[url] for url in URLS) <= 1
    assert any("remove_repeated_spans" in row["what"] for row in funnel_rows(folder))

    stories = [json.loads(gristmill("why", u, "--out", str(folder.root), "--json", home=home).stdout) for u in URLS]
    ids = [story["document"]["doc_id"] for story in stories]
    assert [story["measured"]["repeated"]["example"] for story in stories] == ids[::-1]
    assert any(story.get("rewritten", {}).get("remove_repeated_spans") for story in stories)
    assert "repeated" in gristmill("why", URLS[0], "--out", str(folder.root), home=home).stdout

    gristmill(*options, *asked[:2], home=home, timeout=400)
    assert folder.documents == folder.ingested and folder.of_texts() == [folder.repeated]
    assert require_step(folder, "measure").result["documents"] == open_dataset(folder.ingested).manifest.rows

"""A recipe names what a run reads: paths from its folder, columns and licences by source, mistakes with their line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtures.inputs import KINDS, TABLES
from mixtures.recipe import load_recipe
from pipelines.checks import check_request
from pipelines.named_files import local_files, quick_identity
from pipelines.raw_inputs import READERS, inputs_of, labelled_sources
from pipelines.request import RunRequest
from pipelines.sample.request import with_sample
from sources.ingest import IngestConfig, ingest
from storage.errors import CurationError

RECIPE = """\
format_version: 1
name: own
seed: 1
policy: web_default
tokenizer: {train: {vocabulary_size: 600}}
sources:
  - {name: all, where: 'true'}
inputs:
  forum:
    jsonl: posts/*.jsonl
    columns: {text: body, url: meta.link}
    licence: CC-BY-4.0
  papers:
    parquet: [papers.parquet]
    columns:
      text: content
"""
POST = {"body": "A post of some words.", "meta": {"link": "https://example.org/1"}}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "posts").mkdir()
    (tmp_path / "posts" / "a.jsonl").write_text(json.dumps(POST) + "\n")
    pq.write_table(pa.table({"content": ["A paper."], "doi": ["1"]}), tmp_path / "papers.parquet")
    path = tmp_path / "own.yaml"
    path.write_text(RECIPE)
    return path


def test_every_kind_has_a_reader_and_only_tables_have_columns() -> None:
    assert list(READERS) == list(KINDS) and set(TABLES) < set(KINDS)


def test_a_recipe_brings_its_inputs(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    request = RunRequest(recipe=str(recipe))
    inputs = inputs_of(request)
    assert [(raw.source, raw.name, raw.licence) for raw in inputs] == [
        ("forum", "a.jsonl", "CC-BY-4.0"), ("papers", "papers.parquet", None)
    ]  # fmt: skip
    rows = [row for raw in inputs for batch in ingest(raw, IngestConfig()) for row in batch.documents.to_pylist()]
    assert [(row["text"], row["url"]) for row in rows] == [(POST["body"], "https://example.org/1"), ("A paper.", None)]
    assert with_sample(request) is request and local_files(request) == [Path(raw.path) for raw in inputs]
    check_request(request)


def test_options_add_to_a_recipe_and_win_over_it(recipe: Path) -> None:
    request = RunRequest(
        recipe=str(recipe),
        inputs={"jsonl": (str(recipe.parent / "posts" / "a.jsonl"),)},
        columns={"text": "words", "title": "heading", "forum:url": "address"},
        license={"forum": "CC0-1.0"},
    )
    with pytest.raises(CurationError, match="one input is named twice"):
        inputs_of(request)
    (recipe.parent / "b.jsonl").write_text(json.dumps(POST))
    own, forum, papers = inputs_of(
        RunRequest(**{**vars(request), "inputs": {"jsonl": (str(recipe.parent / "b.jsonl"),)}})
    )
    assert dict(own.columns) == {"text": "words", "title": "heading"}
    assert dict(forum.columns) == {"text": "body", "title": "heading", "url": "address"} and forum.licence == "CC0-1.0"
    assert dict(papers.columns) == {"text": "content", "title": "heading"}


def test_web_in_a_recipe_stands_for_web(recipe: Path) -> None:
    (recipe.parent / "a.warc").write_text("WARC")
    recipe.write_text(RECIPE + "  crawl: {web: a.warc}\n")
    assert labelled_sources(RunRequest(recipe=str(recipe))) == {"encyclopedia": [], "web": ["crawl"]}


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("text: body,", "txt: body,", 11, "a document has no `txt`; did you mean `text`"),
        ("jsonl: posts", "jsnl: posts", 10, "unknown key `jsnl`"),
        ("jsonl: posts/*.jsonl", "encyclopedia: a.xml", 11, "`columns` goes with jsonl"),
        ("    jsonl: posts/*.jsonl\n", "", 9, "this input names no file"),
        (
            "text: body",
            "text: bdy",
            11,
            r"`forum` has no column `bdy` for `text`; did you mean `body`\? It has `body`, `m",
        ),
        ("meta.link", "meta.url", 11, "no column `meta.url` for `url`"),
        (
            "text: content",
            "text: abstract",
            16,
            "`papers` has no column `abstract` for `text`; it has `content`, `doi`",
        ),
    ],
)
def test_mistakes_have_their_line(recipe: Path, old: str, new: str, line: int, told: str) -> None:
    assert old in RECIPE
    recipe.write_text(RECIPE.replace(old, new))
    with pytest.raises(CurationError, match=told) as caught:
        check_request(RunRequest(recipe=str(recipe)))
    assert caught.value.at and caught.value.at.endswith(f"own.yaml:{line}")


@pytest.mark.parametrize("split", [None, "test"])
def test_columns_of_a_saved_dataset_are_known_before_the_run(recipe: Path, split: str | None) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"article": "Words.", "meta": {"link": "https://e.org"}}])
    (datasets.DatasetDict({split: rows}) if split else rows).save_to_disk(str(recipe.parent / "saved"))
    named = f"saved?split={split}" if split else "saved"
    good = f"  news: {{dataset: '{named}', columns: {{text: article, url: meta.link}}}}\n"
    recipe.write_text(RECIPE + good)
    check_request(RunRequest(recipe=str(recipe)))
    recipe.write_text(RECIPE + good.replace("meta.link", "meta.lnk"))
    with pytest.raises(CurationError, match="no column `meta.lnk` for `url`; did you mean `meta.link`"):
        check_request(RunRequest(recipe=str(recipe)))


def test_where_documents_lie_is_no_part_of_the_recipe_but_of_the_run(recipe: Path) -> None:
    before, identity = quick_identity(RunRequest(recipe=str(recipe)), []), load_recipe(str(recipe)).identity()
    (recipe.parent / "posts" / "a.jsonl").write_text("another size")
    assert quick_identity(RunRequest(recipe=str(recipe)), []) != before
    recipe.write_text(RECIPE.replace("posts/*.jsonl", "posts/a.jsonl"))
    assert load_recipe(str(recipe)).identity() == identity

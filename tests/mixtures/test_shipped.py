"""What is shipped: schemas that are current and right, policies and recipes that load, bind and do what they say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from classifiers.contamination.stage import CONTAMINATION
from classifiers.fasttext.file import packaged_language_model
from classifiers.fasttext.stage import FastTextConfig, fasttext_stage
from classifiers.fluency.thirds import WITH_THIRD
from classifiers.language.stage import LANGUAGE, language_stage
from classifiers.quality.stage import QUALITY
from classifiers.rules import RULES, rules_stage
from classifiers.scorers.told import Telling, told_type
from classifiers.url import URL
from classifiers.url_lists import UrlListsConfig, url_lists_stage
from classifiers.word_lists import WordListsConfig, word_lists_stage
from mixtures import policy, recipe
from mixtures.binding import bind_gate, bind_policy
from mixtures.conditions import bind_sources
from mixtures.json_schemas import FOLDER, MODELS, schema_text
from mixtures.judge import judge_duplicates, judge_rules
from mixtures.policy import load_policy
from mixtures.recipe import load_recipe
from storage.errors import SqlError
from storage.schema import IDENTIFIER
from storage.stage import Stage

POLICIES = sorted(path.stem for path in policy.SHIPPED.glob("*.yaml"))
RECIPES = sorted(path.stem for path in recipe.SHIPPED.glob("*.yaml"))

CATALOGUE = pa.schema(
    [
        ("doc_id", IDENTIFIER),
        ("source", pa.string()),
        ("url", pa.string()),
        ("text_bytes", pa.int64()),
        ("language", pa.struct(list(LANGUAGE))),
        ("rules", pa.struct(list(RULES))),
        ("url_facts", pa.struct(list(URL))),
        ("quality", pa.struct(list(QUALITY))),
        ("fluency", pa.struct(list(WITH_THIRD))),
        ("scores", pa.struct([("domain", told_type(("Science", "Sports"), Telling()))])),
    ]
)


def test_benchmark_items_are_judged_where_they_were_looked_for() -> None:
    policy = load_policy("web_default")
    measured = CATALOGUE.append(pa.field("contamination", pa.struct(list(CONTAMINATION)[:2])))
    names = [[rule.name for rule in bind_policy(policy, schema).rules] for schema in (CATALOGUE, measured)]
    assert set(names[1]) - set(names[0]) == {"contaminated", "contaminated_characters"}


GOOD = "The mill stands by the river and grinds the corn of three villages. " * 3
OPTIONAL_STAGES = {
    "fasttext": lambda folder: fasttext_stage(FastTextConfig(model=str(packaged_language_model()), positive="en")),
    "url_lists": lambda folder: url_lists_stage(
        UrlListsConfig(folders=(str(folder),), packaged=False, banned_subwords=str(folder / "subwords"))
    ),
    "word_lists": lambda folder: word_lists_stage(WordListsConfig(path=str(folder / "words"))),
}


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam" / "domains").write_text("spam.example\n")
    (tmp_path / "subwords").write_text("casino\n")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "en").write_text("filthy word\n")
    (tmp_path / "words" / "zh").write_text("敏感词\n", "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "stage", "rule", "good", "bad", "bad_url"),
    [
        ("c4", "word_lists", "bad_words", GOOD, f"{GOOD} Filthy word.", None),
        ("cci4_zh", "word_lists", "sensitive_words", "敏感词是一个词。敏感词。", "敏感词。敏感词。敏感词。", None),
        ("dclm", "fasttext", "low_fasttext_score", GOOD, "Die Mühle steht am Fluss und mahlt das Korn.", None),
        ("fineweb", "url_lists", "listed_address", GOOD, GOOD, "https://www.spam.example/a"),
        ("fineweb", "url_lists", "banned_subword", GOOD, GOOD, "https://fine.example/a-1casino1"),
        ("web_default", "url_lists", "listed_address", GOOD, GOOD, "https://www.spam.example/a"),
    ],
)
def test_optional_rules_judge_what_their_stage_measured_and_are_left_out_without_it(
    lists: Path, name: str, stage: str, rule: str, good: str, bad: str, bad_url: str | None
) -> None:
    plain = catalogue_of([good, bad], "en", "web")
    measured = measured_by(OPTIONAL_STAGES[stage](lists), [good, bad], ["https://fine.example/a", bad_url])
    failed = failing_rules(name, plain.append_column(stage, measured))
    assert rule in failed[1] and rule not in failed[0]
    assert rule not in failing_rules(name, plain)[1]


def test_an_optional_rule_whose_stage_measured_something_else_is_refused() -> None:
    """A folder of word lists without C4's: left out, the rule would be missed by nobody."""
    lists = pa.array([{"zh": 0}], pa.struct([("zh", pa.int32())]))
    with pytest.raises(SqlError, match=r"word_lists\.en"):
        failing_rules("c4", catalogue_of([GOOD], "en", "web").append_column("word_lists", lists))


def test_a_classifier_measured_without_its_positive_label_is_refused() -> None:
    labels = pa.array([{"label": "hq", "score": 0.9}], pa.struct([("label", pa.string()), ("score", pa.float32())]))
    with pytest.raises(SqlError, match=r"fasttext\.positive_score"):
        failing_rules("dclm", catalogue_of([GOOD], "en", "web").append_column("fasttext", labels))


def test_code_from_the_web_has_no_language_and_an_encyclopedias_table_may_stay() -> None:
    code = Path(policy.__file__).read_text()
    measured = measured_by(language_stage(), [GOOD, code, code])
    plain = catalogue_of([GOOD, code, code], "en", "web")
    sources = pa.array(["web", "web", "encyclopedia"])
    table = plain.set_column(plain.schema.get_field_index("source"), "source", sources)
    table = table.set_column(table.schema.get_field_index("language"), "language", measured)
    assert ["no_language" in found for found in failing_rules("web_default", table)] == [False, True, False]


def measured_by(stage: Stage, found: list[str], urls: list[str | None] | None = None) -> pa.StructArray:
    batch = pa.record_batch({"text": found, "url": pa.array(urls or [None] * len(found), pa.string())})
    return stage.make(stage.config)(batch.select(list(stage.reads))).to_struct_array()


def failing_rules(name: str, table: pa.Table) -> list[set[str]]:
    """The rules that each document fails."""
    rows = judge_rules(table, bind_policy(load_policy(name), table.schema)).rows.to_pylist()
    return [{row["rule"] for row in rows if row["row"] == i} for i in range(table.num_rows)]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_schemas_are_current(name: str) -> None:
    """Run `python -m mixtures.json_schemas` when this fails."""
    assert (FOLDER / f"{name}.json").read_text() == schema_text(name)


@pytest.mark.parametrize("path", [*policy.SHIPPED.glob("*.yaml"), *recipe.SHIPPED.glob("*.yaml")], ids=lambda p: p.stem)
def test_shipped_files_meet_their_schema_and_wrong_ones_do_not(path: Path) -> None:
    validator = schema_validator({"policies": "policy", "recipes": "recipe"}[path.parent.name])
    values = yaml.safe_load(path.read_text())
    assert not list(validator.iter_errors(values))
    assert list(validator.iter_errors({**values, "unknown": 1}))
    assert list(validator.iter_errors({**values, "format_version": 2}))


@pytest.mark.parametrize(
    "broken",
    [
        {"tokenizer": {}},
        {"tokenizer": {"train": {"vocabulary_size": 8000}, "load": "x"}},
        {"tokens": "many"},
        {"sources": []},
    ],
)
def test_the_schema_sees_what_the_model_refuses(broken: dict[str, Any]) -> None:
    values = yaml.safe_load((recipe.SHIPPED / "web_wiki.yaml").read_text())
    assert list(schema_validator("recipe").iter_errors({**values, **broken}))


def schema_validator(name: str) -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(schema_text(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", POLICIES)
def test_policies_bind_to_what_the_stages_write(name: str) -> None:
    loaded = load_policy(name)
    assert loaded.name == name
    ordinary = [rule for rule in loaded.rules if not (rule.duplicates or rule.optional)]
    assert len(bind_policy(loaded, CATALOGUE).rules) == len(ordinary) >= 2
    measured = pa.schema([field for field in CATALOGUE if field.name not in ("quality", "fluency", "scores")])
    assert len(bind_gate(loaded, measured).rules) == (len(loaded.gate.rules) if loaded.gate else 0)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_bind_and_name_a_policy_that_is_there(name: str) -> None:
    loaded = load_recipe(name)
    assert loaded.name == name
    bind_sources(loaded, CATALOGUE)
    load_policy(loaded.policy, beside=loaded.folder)


def texts(path: Path, count: int) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(count), strict=False)]
    return [row["text"] if "text" in row else row["main_content"] for row in rows]


@pytest.mark.parametrize(
    ("policy_name", "file", "label", "source", "least", "most"),
    [
        ("web_default", "encyclopedia/en-articles.jsonl.gz", "en", "encyclopedia", 0.98, 1),
        ("web_default", "encyclopedia/zh-articles.jsonl.gz", "zh", "encyclopedia", 0.85, 1),
        ("web_default", "text/c4-sample.jsonl.gz", "en", "web", 0.8, 1),
        ("gopher", "text/c4-sample.jsonl.gz", "en", "web", 0.7, 0.95),
        ("fineweb", "text/c4-sample.jsonl.gz", "en", "web", 0.6, 0.9),
        ("fineweb", "encyclopedia/zh-articles.jsonl.gz", "zh", "web", 0, 0),
        ("c4", "text/c4-sample.jsonl.gz", "en", "web", 0.8, 1),
        ("c4", "encyclopedia/en-articles.jsonl.gz", "en", "web", 0.8, 1),
        ("dclm", "text/c4-sample.jsonl.gz", "en", "web", 0.7, 1),
        ("cci4_zh", "encyclopedia/zh-articles.jsonl.gz", "zh", "encyclopedia", 0.92, 0.96),
        ("cci4_zh", "text/zh-web.jsonl.gz", "zh", "web", 0.5, 0.7),
        ("cci4_zh", "web/zh-news.gold.jsonl.gz", "zh", "web", 1, 1),
        ("cci4_zh", "text/c4-sample.jsonl.gz", "en", "web", 0, 0),
    ],
)
def test_policies_keep_what_they_are_for(
    shared_data: Path, policy_name: str, file: str, label: str, source: str, least: float, most: float
) -> None:
    table = catalogue_of(texts(shared_data / file, 250), label, source)
    bound = bind_policy(load_policy(policy_name), table.schema)
    facts = judge_duplicates(table, bound, judge_rules(table, bound)).facts
    assert least <= facts["kept"] / table.num_rows <= most, facts  # type: ignore[operator]


def catalogue_of(found: list[str], label: str, source: str) -> pa.Table:
    """The documents as a run's catalogue has them, in a language of which the model is sure, of middling quality."""
    stage = rules_stage()
    measured = stage.make(stage.config)(pa.record_batch({"text": pa.array(found)}))
    return pa.table(
        {
            "doc_id": pa.array([i.to_bytes(16, "big") for i in range(len(found))], IDENTIFIER),
            "source": [source] * len(found),
            "url": pa.nulls(len(found), pa.string()),
            "text_bytes": pa.array([len(text.encode()) for text in found], pa.int64()),
            "language": pa.array([{"label": label, "score": 0.95}] * len(found), CATALOGUE.field("language").type),
            "rules": measured.to_struct_array(),
            "url_facts": pa.nulls(len(found), CATALOGUE.field("url_facts").type),
            "quality": pa.array([{"score": 0.5, "bucket": 10}] * len(found), CATALOGUE.field("quality").type),
            "fluency": pa.nulls(len(found), CATALOGUE.field("fluency").type),
            "scores": pa.nulls(len(found), CATALOGUE.field("scores").type),
        },
        schema=CATALOGUE,
    )

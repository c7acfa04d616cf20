"""Curated against raw: does a model that learns from what a policy keeps read other text better?

Some 60,000 real pages, the HTML of Debian's documentation packages and web archives, are extracted once. Three arms
learn from equally many tokens of them: raw, everything that was extracted; curated, the English of what Gristmill's
default policy keeps; and what datatrove's FineWeb recipe keeps (`_fineweb_by_datatrove`). All are measured on an
encyclopedia and on clean web text of other hosts, which none has seen, with one tokenizer trained on texts that are in
no arm.

Invariant: everything is found again when the command is run anew, down to the single model. Trade-off: 1.2 million
tokens for a model of two million parameters, so that nine models take half an hour on a core or two: what needs more
training to show (the harm of repetition over many epochs) does not show here.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.corpora import FOLDER
from benchmarks.documentation_pages import prepare_pages, read_list
from benchmarks.outcome._fineweb_by_datatrove import drop_documents
from benchmarks.table import Row, publish
from mixtures.withheld import write_withheld
from pipelines.comparison import sentences_of
from pipelines.funnel import funnel_rows
from pipelines.run_folder import RunFolder

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gristmill" / "benchmarks" / "curated"
MEASURED = ("encyclopedia", "clean_web")
ARMS = RAW, CURATED, FINEWEB = "raw", "curated", "fineweb_by_datatrove"
HEAD = "format_version: 1\n"
NEUTRAL_POLICY = f"""{HEAD}name: neutral
description: What the tokenizer is trained on. Nothing is scored, because no label says what is good.
gate: {{rules: [not_neutral]}}
rules:
  - {{rule: not_neutral, when: "source <> 'neutral'"}}
  - {{rule: exact_duplicate, duplicates: exact}}
  - {{rule: near_duplicate, duplicates: near, min_similarity: 0.8}}
"""
NEUTRAL_RECIPE = f"""{HEAD}name: neutral
description: The texts that the tokenizer is trained on, and nothing else.
seed: 1
sequence_length: 256
policy: neutral.yaml
tokenizer: {{train: {{vocabulary_size: 4k}}}}
heldout: {{share: 0.02}}
sources:
  - {{name: neutral, where: "source = 'neutral'"}}
"""
EVERYTHING = f"{HEAD}name: everything\nrules:\n  - {{rule: nothing, when: 'false'}}\n"
ARM = """format_version: 1
name: {name}
seed: 1
policy: {policy}
tokenizer: {{load: any}}
{more}sources:
  - {{name: web, where: "source = 'web'{where}"}}
"""
ENGLISH = " AND language.label = 'en'"
"""What is measured is English, and FineWeb's recipe begins with this filter."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the real texts lie")
    parser.add_argument("--out", type=Path, default=CACHE, help="where pages, run and models are kept and found again")
    parser.add_argument("--web", action="append", default=[], help="further WARC files to learn from; repeatable")
    parser.add_argument("--tokens", type=int, default=1_200_000, help="tokens that each model learns from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fineweb-seeds", type=int, default=None, help="of the third arm, if fewer: it costs a third")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--workers", type=int, default=None, help="CPUs of the embedded Ray")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    run = curate(options)
    dropped = write_arms(options.out, run)
    fewer = options.fineweb_seeds
    result = ablate(options, ARMS if fewer is None else ARMS[:2], options.seeds)
    third = result if fewer is None else ablate(options, ARMS, fewer)
    packages = ("datatrove", "spacy", "torch")
    notes = notes_of(result, third, run, dropped)
    publish("curated_against_raw", describe(result, third), packages=packages, notes=notes)


def curate(options: argparse.Namespace) -> RunFolder:
    """Extract, measure and search duplicates once, and train the tokenizer."""
    pages = options.out / "pages"
    prepare_pages(pages, read_list())
    archives = options.folder / "web"
    web = [f"{pages}/*.warc.gz", f"{archives}/archives/*.warc.gz", f"{archives}/zh-news.warc.gz", *options.web]
    texts = write_texts(options.folder, options.out / "texts")
    (options.out / "neutral.yaml").write_text(NEUTRAL_POLICY)
    (options.out / "run.yaml").write_text(NEUTRAL_RECIPE)
    inputs = [f"--web=web={path}" for path in web] + [f"--jsonl={name}={path}" for name, path in texts.items()]
    how = ["--preset", "proxy", "--train-steps", "1", "--part-megabytes", "8"]
    _gristmill(options, "run", *inputs, "--recipe", str(options.out / "run.yaml"), *how)
    return RunFolder(options.out / "run")


def _gristmill(options: argparse.Namespace, command: str, *arguments: str) -> str:
    workers = ["--workers", str(options.workers)] if options.workers else []
    told = [sys.executable, "-m", "pipelines.cli", command, *arguments, "--out", str(options.out / "run"), *workers]
    return subprocess.run(told, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_texts(folder: Path, target: Path) -> dict[str, Path]:
    """A JSONL file for each text that is measured on, and for the tokenizer's: every second of each collection."""
    articles = _rows(folder / "encyclopedia" / "en-articles.jsonl.gz")
    crawled = _rows(folder / "text" / "c4-sample.jsonl.gz")
    gold = [row for row in _rows(folder / "web" / "wcxb-dev.gold.jsonl") if row["page_type"] == "article"]
    clean = [{"url": row["url"], "text": row["main_content"]} for row in gold]
    rows = {
        "encyclopedia_held_out": articles[::2],
        "clean_web_held_out": [*crawled[::2], *clean],
        "neutral": [*articles[1::2], *crawled[1::2]],
    }
    target.mkdir(exist_ok=True)
    return {name: _write_rows(target / f"{name}.jsonl", kept) for name, kept in rows.items()}


def _rows(path: Path) -> list[dict[str, Any]]:
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as lines:
        return [json.loads(line) for line in lines]


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    told = ({key: row[key] for key in ("url", "text") if key in row} for row in rows)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def write_arms(folder: Path, run: RunFolder) -> Counter[str]:
    """The three recipes; how many documents each step of datatrove's recipe dropped."""
    dropped, counts = drop_documents(run, "web", folder / "datatrove")
    listed = write_withheld(folder, dropped)
    (folder / "everything.yaml").write_text(EVERYTHING)
    arms = {
        RAW: {"policy": "everything.yaml", "more": "", "where": ""},
        CURATED: {"policy": "web_default", "more": "", "where": ENGLISH},
        FINEWEB: {"policy": "everything.yaml", "more": f"withheld: {listed.name}\n", "where": ""},
    }
    for name, told in arms.items():
        (folder / f"{name}.yaml").write_text(ARM.format(name=name, **told))
    return counts


def ablate(options: argparse.Namespace, names: Sequence[str], seeds: int) -> dict[str, Any]:
    """Train and measure all models; the ablation's result."""
    arms = [str(options.out / f"{name}.yaml") for name in names]
    texts = [f"--measure-on={name}=source = '{name}_held_out'" for name in MEASURED]
    asked = ["--seeds", str(seeds), "--tokens", str(options.tokens), "--preset", options.preset]
    told = _gristmill(options, "ablate", *arms, *texts, "--heldout", "60000", *asked)
    result: dict[str, Any] = json.loads(Path(told.split("result:")[1].strip()).read_bytes())
    return result


def describe(result: Mapping[str, Any], third: Mapping[str, Any]) -> list[Row]:
    """Each arm beside another one, on each text; `third` is the ablation with FineWeb's arm."""
    pairs = ((result, CURATED, RAW), (third, FINEWEB, RAW), (third, CURATED, FINEWEB))
    return [
        Row(
            what=f"{text.replace('_', ' ')}: {name.replace('_', ' ')}{_fewer(found, result)}",
            figure=_bits(found, name, text)["mean"],
            unit="bits per byte",
            peer=other.replace("_", " "),
            peer_figure=_bits(found, other, text)["mean"],
        )
        for text in MEASURED
        for found, name, other in pairs
    ]


def _bits(result: Mapping[str, Any], name: str, text: str) -> Mapping[str, Any]:
    rows = {row["name"]: row for row in result["experiments"]}
    found: Mapping[str, Any] = rows[name]["bits_per_byte"][text]
    return found


def _fewer(found: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    seeds = found["request"]["seeds"]
    return "" if found is result else f", {seeds} seed{'s' if seeds > 1 else ''}"


def notes_of(
    result: Mapping[str, Any], third: Mapping[str, Any], run: RunFolder, dropped: Mapping[str, int]
) -> list[str]:
    """Intervals, what each arm learned from, and what its rules dropped."""
    asked = result["request"]
    told = [
        f"{asked['seeds']} seeds, {asked['tokens']:,} tokens a model, preset `{asked['preset']}`, "
        f"{result['experiments'][0]['parameters']:,} parameters with the embeddings; 95 % t-intervals over seeds; "
        "held-out tokens: " + ", ".join(f"{name} {row['tokens']:,}" for name, row in result["heldout"].items()),
    ]
    for found in (result, third) if third is not result else (result,):
        told += [
            f"{row['name']}{_fewer(found, result)}, {text}: {_interval(row['bits_per_byte'][text])}"
            for row in found["experiments"]
            for text in MEASURED
            if found is result or row["name"] == FINEWEB
        ]
        told += sentences_of(found) if found is result else []
    for arm in third["arms"]:
        size = f"{arm['documents']:,} documents, {arm['tokens_available']:,} tokens to draw from"
        told.append(f"{arm['name']}: {size}; {arm['epochs']:.2f} epochs at most")
    curated = next(arm for arm in third["arms"] if arm["name"] == CURATED)
    told.append(f"dropped by Gristmill's `{curated['policy']}`: {_counts(curated['rules'])}")
    told.append(f"by datatrove's recipe: {_counts(dropped)}")
    pages = next(row for row in funnel_rows(run) if row["step"] == "documents")
    told.append(f"{pages['left']:,} documents were extracted, those that are measured on and the tokenizer's included")
    told.append("no label says what is good, so nothing has a quality score, and `low_quality` drops nothing")
    return told


def _interval(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['mean']:.4f} (one seed: no interval)"
    return f"{found['mean']:.4f} ({found['low']:.4f} to {found['high']:.4f})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))

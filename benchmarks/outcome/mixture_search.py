"""Mixture search: do laws fitted to small models rank mixtures that they have not seen as training them does?

The whole command runs on six sources of real text in four languages: `gristmill run`, then `gristmill search-mixture`.
Invariant: laws and peers are fitted to the same proxies and judged on the same held-out mixtures; the ceiling is the
rank correlation between two seeds of those. Trade-off: models under a million parameters and some hundred thousand
tokens each, so that eighty of them train in a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.corpora import FOLDER, read_documents
from benchmarks.table import Row, publish
from classifiers.quality.metrics import rank_correlation
from mixtures.laws import KINDS

Floats = npt.NDArray[np.float64]

SOURCES = ("wiki_en", "wiki_zh", "web_en", "web_zh", "web_fr", "web_sv")
RECIPE = """\
format_version: 1
name: six_sources
seed: 20240229
sequence_length: 128
policy: policy.yaml
tokenizer: {train: {vocabulary_size: 4k}}
heldout: {share: 0.05}
sources:
"""
POLICY = "format_version: 1\nname: all_texts\nrules:\n  - {rule: empty, measure: rules.num_words, min: 1}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the real texts lie")
    parser.add_argument("--out", type=Path, help="keep the run here, and go on with it (default: a temporary folder)")
    parser.add_argument("--mixtures", type=int, default=40)
    parser.add_argument("--heldout-mixtures", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=300_000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        result, seconds = search(options, options.out or Path(temporary))
    publish("mixture_search", describe(result, seconds), packages=("torch", "scipy", "lightgbm"), notes=_notes(result))


def search(options: argparse.Namespace, out: Path) -> tuple[dict[str, Any], float]:
    """Curate and tokenize the sources once, then search; the result and the search's wall seconds."""
    out.mkdir(parents=True, exist_ok=True)
    recipe, run = write_recipe(out), out / "run"
    inputs = [f"--jsonl={name}={path}" for name, path in write_sources(options.folder, out).items()]
    _gristmill("run", *inputs, "--recipe", str(recipe), "--out", str(run), "--preset", "proxy", "--train-steps", "1")
    asked = ["--mixtures", str(options.mixtures), "--heldout-mixtures", str(options.heldout_mixtures)]
    start = time.perf_counter()
    told = _gristmill("search-mixture", str(recipe), "--out", str(run), *asked, "--tokens", str(options.tokens))
    return json.loads(Path(told.split("result:")[1].strip()).read_bytes()), time.perf_counter() - start


def _gristmill(*arguments: str) -> str:
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_recipe(out: Path) -> Path:
    (out / "policy.yaml").write_text(POLICY)
    path = out / "recipe.yaml"
    path.write_text(RECIPE + "".join(f"  - {{name: {name}, where: \"source = '{name}'\"}}\n" for name in SOURCES))
    return path


def write_sources(folder: Path, out: Path) -> dict[str, Path]:
    """A JSONL file of each source."""
    written = {}
    for name, texts in _texts(folder).items():
        written[name] = out / f"{name}.jsonl"
        written[name].write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return written


def _texts(folder: Path) -> Mapping[str, Iterable[str]]:
    by_file: dict[str, list[str]] = {}
    for document in read_documents(folder):
        by_file.setdefault(document.file, []).append(document.text)
    registers: dict[str, list[str]] = {"fr": [], "sv": []}
    with gzip.open(folder / "quality" / "web-registers.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            registers.setdefault(row["language"], []).append(row["text"])
    return {
        "wiki_en": by_file["encyclopedia/en-articles.jsonl.gz"],
        "wiki_zh": by_file["encyclopedia/zh-articles.jsonl.gz"],
        "web_en": by_file["text/c4-sample.jsonl.gz"] + by_file["web/wcxb-dev.gold.jsonl"],
        "web_zh": by_file["text/zh-web.jsonl.gz"],
        "web_fr": registers["fr"],
        "web_sv": registers["sv"],
    }


def describe(result: Mapping[str, Any], seconds: float) -> list[Row]:
    held, names = result["heldout_mixtures"], [row["name"] for row in result["sources"]]
    fitted = [proxy for proxy in result["proxies"] if proxy["name"].startswith("m")]
    unseen = {proxy["name"]: proxy for proxy in result["proxies"] if proxy["name"].startswith("h")}
    texts, measured = list(result["objective"]), np.array([np.mean(values) for values in held["trained"]])
    points, others = _shares(fitted, names), _shares([unseen[name] for name in sorted(unseen)], names)
    values = np.array([[proxy["bits_per_byte"][text] for text in texts] for proxy in fitted])
    trees = rank_correlation(fit_trees(points, values, others), measured)
    correlation = "rank correlation"
    rows = [
        Row(what="predicted and trained, by the laws that cross-validation prefers", figure=held["rank_correlation"],
            unit=correlation, peer="LightGBM with RegMix's settings", peer_figure=trees),
        Row(what="the ceiling: one seed and another", figure=float(held["ceiling"]), unit=correlation),
    ]  # fmt: skip
    for kind, fit in KINDS.items():
        predicted = np.mean([fit(points, values[:, i])(others) for i in range(len(texts))], axis=0)
        found = rank_correlation(predicted, measured) or 0.0
        rows.append(Row(what=f"the {kind} law alone", figure=found, unit=correlation))
    best, own = result["trained"]["best"], result["trained"]["recipe"]
    return [
        *rows,
        Row(what="error of a prediction", figure=held["error"], unit="bits per byte"),
        Row(what="spread of the held-out mixtures", figure=float(measured.std()), unit="bits per byte"),
        Row(what="best mixture, predicted", figure=best["predicted"], unit="bits per byte"),
        Row(what="best mixture, trained", figure=best["measured"], unit="bits per byte",
            peer="the recipe's own: the sizes of the sources", peer_figure=own["measured"]),
        Row(what="the search", figure=seconds, unit="seconds"),
    ]  # fmt: skip


def _shares(proxies: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Floats:
    return np.array([[proxy["weights"].get(name, 0.0) for name in names] for proxy in proxies])


def fit_trees(points: Floats, values: Floats, others: Floats) -> Floats:
    """RegMix's regression, with its settings and early stopping (its regression_fitting notebook); mean over texts.

    Its leaves of 20 points and more are meant for 512 proxies; here they may have 4, or the trees say one value only.
    """
    import lightgbm

    settings = {
        "objective": "regression", "metric": ["l1", "l2"], "num_iterations": 1000, "seed": 42, "learning_rate": 1e-2,
        "verbosity": -1, "num_threads": 1, "min_child_samples": 4, "min_data_in_bin": 1,
    }  # fmt: skip
    cut = max(4, len(points) // 8)
    predicted = []
    for column in values.T:
        model = lightgbm.LGBMRegressor(**settings)
        stop = lightgbm.early_stopping(stopping_rounds=3, verbose=False)
        model.fit(
            points[cut:], column[cut:], eval_set=[(points[:cut], column[:cut])], eval_metric="l2", callbacks=[stop]
        )
        predicted.append(model.predict(others))
    return np.asarray(np.mean(predicted, axis=0))


def _notes(result: Mapping[str, Any]) -> list[str]:
    shares = ", ".join(
        f"{row['name']} {100 * row['recipe_share']:.1f} → {100 * row['best_share']:.1f} %" for row in result["sources"]
    )
    kinds = ", ".join(f"{name}: {law['kind']}" for name, law in result["laws"].items())
    asked = result["request"]
    return [
        f"{asked['mixtures']} mixtures fitted, {asked['heldout_mixtures']} held out, {asked['repeats']} seeds each; "
        f"{asked['tokens']:,} tokens a model",
        f"shares of the sources, their sizes and the best: {shares}",
        f"laws: {kinds}",
        "RegMix fits its trees to 512 proxies; with so few they are weak, even with leaves of 4 and not 20",
    ]

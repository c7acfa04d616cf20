"""Train the weights by which pages are read: `python -m benchmarks.train_pages [--web WARC --gold JSONL ...]`.

Only the tuning half is learned from (`benchmarks.web_pages`), so that the reported half is what unseen pages give.
What one forest learns from another's answers (types → blocks, first → second judgement) are answers about pages that
the other was not shown: six folds. The same pages give the same weights, to the byte, on one version of LightGBM.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.page_labels import LabelledPage, label_page
from benchmarks.web_pages import CHINESE_NEWS, REPORTED, TUNING, WCXB, read_gold_pages
from sources.pages.blocks import FEATURES
from sources.pages.context import add_context
from sources.pages.facts import Facts, read_facts
from sources.pages.judge import WEIGHTS, choose_blocks, with_types
from sources.pages.page_type import PAGE_TYPES, describe_page
from sources.pages.trees import DEPTH, Forest, forest_of

Array = npt.NDArray[Any]
FOLDS = 6
_WORDY = [n for n, name in enumerate(FEATURES) if name.startswith("text_") or "function" in name or "foreign" in name]
BLOCK_TREES = {
    "objective": "cross_entropy", "learning_rate": 0.03, "num_leaves": 31, "max_depth": DEPTH, "min_data_in_leaf": 120,
    "feature_fraction": 0.2, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5,
    "deterministic": True, "force_row_wise": True, "num_threads": 1, "seed": 1, "verbose": -1,
}  # fmt: skip
TYPE_TREES = BLOCK_TREES | {
    "objective": "multiclass", "num_class": len(PAGE_TYPES), "num_leaves": 6, "min_data_in_leaf": 5,
}  # fmt: skip
BLOCK_ROUNDS, TYPE_ROUNDS = 300, 80


def fit_trees(rows: Array, labels: Array, weights: Array, parameters: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """Trees as columns (see `sources.pages.trees`)."""
    import lightgbm

    data = lightgbm.Dataset(rows, labels, weight=weights, params={"verbose": -1})
    booster = lightgbm.train(dict(parameters), data, rounds)
    return _columns(booster.dump_model()["tree_info"], int(parameters.get("num_class", 1)))


def _columns(trees: Sequence[Mapping[str, Any]], outputs: int) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: [] for name in ("feature", "threshold", "left", "right", "value", "roots", "groups")
    }

    def add(node: Mapping[str, Any]) -> int:
        if "leaf_value" in node:
            columns["value"].append(round(node["leaf_value"], 5))
            return -len(columns["value"])
        place = len(columns["feature"])
        columns["feature"].append(node["split_feature"])
        columns["threshold"].append(float(f"{node['threshold']:.6g}"))
        columns["left"].append(0)
        columns["right"].append(0)
        columns["left"][place] = add(node["left_child"])
        columns["right"][place] = add(node["right_child"])
        return place

    for number, tree in enumerate(trees):
        columns["roots"].append(add(tree["tree_structure"]))
        columns["groups"].append(number % outputs)
    return columns | {"outputs": outputs}


def block_weights(page: LabelledPage) -> Array:
    """Every page counts the same; in it, half by words and half by their square roots, so that short blocks count."""
    sizes = page.sizes.astype(float)
    roots = np.sqrt(sizes)
    return np.asarray(125 * sizes / max(sizes.sum(), 1) + 125 * roots / max(roots.sum(), 1))


def fit_blocks(pages: Sequence[LabelledPage], rows: Sequence[Array]) -> dict[str, Any]:
    """Trees for blocks; each page is shown twice, once without the numbers that come from words of a language."""
    mute = [row.copy() for row in rows]
    for row in mute:
        row[:, _WORDY] = 0
    shown, labels = np.concatenate([*rows, *mute]), np.concatenate([page.labels for page in pages] * 2)
    weights = np.concatenate([block_weights(page) for page in pages] * 2)
    seen = weights > 0
    return fit_trees(shown[seen], labels[seen], weights[seen], BLOCK_TREES, BLOCK_ROUNDS)


def fit_types(rows: Sequence[Array], types: Sequence[str]) -> dict[str, Any]:
    """Trees for the types of pages."""
    labels = np.array([PAGE_TYPES.index(name) for name in types])
    return fit_trees(np.stack(rows), labels, np.ones(len(labels)), TYPE_TREES, TYPE_ROUNDS)


def crosswise(count: int, fit: Callable[[list[int]], Forest], ask: Callable[[Forest, int], Array]) -> list[Array]:
    """For each of `count` pages the answer of a forest that was not shown it."""
    answers: list[Array] = [np.empty(0)] * count
    for fold in range(FOLDS):
        forest = fit([page for page in range(count) if page % FOLDS != fold])
        for page in range(fold, count, FOLDS):
            answers[page] = ask(forest, page)
    return answers


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def train(pages: Sequence[LabelledPage]) -> tuple[dict[str, Any], list[Array]]:
    """The three forests, and what forests that were not shown a page think of its blocks."""
    described = [describe_page(page.blocks, facts_of(page), page.page.url) for page in pages]
    types = [page.page.page_type if page.page.page_type in PAGE_TYPES else "article" for page in pages]

    def fit_some_types(chosen: list[int]) -> Forest:
        return forest_of(fit_types([described[n] for n in chosen], [types[n] for n in chosen]))

    shares = crosswise(len(pages), fit_some_types, lambda forest, n: _softmax(forest.scores(described[n][None])[0]))
    hits = sum(PAGE_TYPES[int(share.argmax())] == name for share, name in zip(shares, types, strict=True))
    print(f"page type right for {hits / len(pages):.3f} of pages not shown", flush=True)
    rows = [with_types(page.blocks.features, share) for page, share in zip(pages, shares, strict=True)]
    first = _crosswise_blocks(pages, rows)
    rows = [
        with_types(add_context(page.scan, page.blocks, found), share)
        for page, found, share in zip(pages, first, shares, strict=True)
    ]
    second = _crosswise_blocks(pages, rows)
    _show("first judgement, pages not shown", pages, first)
    _show("second judgement, pages not shown", pages, second)
    both = [(one + two) / 2 for one, two in zip(first, second, strict=True)]
    _show("both, pages not shown", pages, both)
    first_rows = [with_types(page.blocks.features, share) for page, share in zip(pages, shares, strict=True)]
    forests = {
        "types": fit_types(described, types),
        "first": fit_blocks(pages, first_rows),
        "second": fit_blocks(pages, rows),
    }
    return forests, both


def _crosswise_blocks(pages: Sequence[LabelledPage], rows: Sequence[Array]) -> list[Array]:
    def fit(chosen: list[int]) -> Forest:
        return forest_of(fit_blocks([pages[n] for n in chosen], [rows[n] for n in chosen]))

    return crosswise(len(pages), fit, lambda forest, n: forest.probabilities(rows[n]))


def facts_of(page: LabelledPage) -> Facts:
    """What the page says about itself."""
    return read_facts(page.scan)


def _show(what: str, pages: Sequence[LabelledPage], found: Sequence[Array]) -> None:
    f1s: dict[str, list[float]] = {}
    for page, probabilities in zip(pages, found, strict=True):
        chosen = choose_blocks(probabilities, page.blocks.words).chosen
        f1s.setdefault(page.page.page_type, []).append(page.f1(chosen))
    words = [f1 for name, values in f1s.items() if name in PAGE_TYPES for f1 in values]
    print(f"{what}: {np.mean(words):.4f}", {name: round(float(np.mean(f1)), 3) for name, f1 in f1s.items()}, flush=True)


def main(arguments: list[str]) -> int:
    """Train on the tuning half, write the weights."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_pages", description=__doc__)
    parser.add_argument("--web", type=Path, nargs="+", default=[WCXB[0], CHINESE_NEWS[0]], metavar="WARC")
    parser.add_argument("--gold", type=Path, nargs="+", default=[WCXB[1], CHINESE_NEWS[1]], metavar="JSONL")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args(arguments)
    gold = [page for pair in zip(options.web, options.gold, strict=True) for page in read_gold_pages(*pair)]
    pages = [label_page(page) for page in gold if page.half != REPORTED]
    print(f"{len(pages)} pages of the {TUNING}")
    forests, _ = train(pages)
    options.out.write_text(json.dumps(forests, separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    from benchmarks.__main__ import PEERS

    sys.path.append(str(PEERS))
    sys.exit(main(sys.argv[1:]))

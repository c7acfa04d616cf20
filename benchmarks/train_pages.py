"""Train the weights by which pages are read: `python -m benchmarks.train_pages [--web PAGES ... --gold GOLD ...]`.

Nothing is learned from a page of the reported half or of `--hidden` gold, nor from another page of the same site, so
that those give what unseen sites give. What one forest learns from another's answers (types → blocks, first → second
judgement) are answers about sites that the other was not shown: four folds. The same pages give the same weights, to
the byte, on one version of LightGBM.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.page_labels import LabelledPage, label_page
from benchmarks.web_pages import CHINESE_NEWS, REPORTED, WCXB, GoldPage, read_gold_pages
from sources.pages.context import add_context
from sources.pages.facts import Facts, read_facts
from sources.pages.features import FEATURES
from sources.pages.judge import WEIGHTS, choose_blocks, with_types
from sources.pages.page_type import PAGE_TYPES, describe_page
from sources.pages.trees import DEPTH, Forest, forest_of

Array = npt.NDArray[Any]
FOLDS = 4
_WORDY = [n for n, name in enumerate(FEATURES) if name.startswith("text_") or "function" in name or "foreign" in name]
BLOCK_TREES = {
    "objective": "cross_entropy", "learning_rate": 0.1, "num_leaves": 63, "max_depth": DEPTH, "min_data_in_leaf": 120,
    "feature_fraction": 0.2, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5,
    "deterministic": True, "force_row_wise": True, "num_threads": 1, "seed": 1, "verbose": -1,
}  # fmt: skip
TYPE_TREES = BLOCK_TREES | {
    "objective": "multiclass", "num_class": len(PAGE_TYPES), "learning_rate": 0.05, "num_leaves": 8,
    "min_data_in_leaf": 5,
}  # fmt: skip
BLOCK_ROUNDS, TYPE_ROUNDS = 160, 100
_LEAST_ORACLE_F1 = 0.5
"""Gold of which the page's own blocks cannot give this much is another page's."""


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


def type_weights(pages: Sequence[LabelledPage]) -> Array:
    """A page of a type that is rare among the pages counts for more: the root of how much rarer than the commonest."""
    counts = Counter(page.page.page_type for page in pages)
    return np.array([(max(counts.values()) / counts[page.page.page_type]) ** 0.5 for page in pages])


def block_weights(page: LabelledPage) -> Array:
    """Every page counts the same; in it, half by words and half by their square roots, so that short blocks count."""
    sizes = page.sizes.astype(float)
    roots = np.sqrt(sizes)
    return np.asarray(125 * sizes / max(sizes.sum(), 1) + 125 * roots / max(roots.sum(), 1))


def fit_blocks(pages: Sequence[LabelledPage], rows: Sequence[Array]) -> dict[str, Any]:
    """Trees for blocks; half of the pages are shown without the numbers that come from words of a language."""
    shown = np.concatenate([_mute(row) if _digit(page) % 2 else row for page, row in zip(pages, rows, strict=True)])
    labels = np.concatenate([page.labels for page in pages])
    shares = zip(pages, type_weights(pages), strict=True)
    weights = np.concatenate([block_weights(page) * share for page, share in shares])
    seen = weights > 0
    return fit_trees(shown[seen], labels[seen], weights[seen], BLOCK_TREES, BLOCK_ROUNDS)


def _mute(row: Array) -> Array:
    muted = row.copy()
    muted[:, _WORDY] = 0
    return muted


def _digit(page: LabelledPage) -> int:
    return zlib.crc32(page.page.url.encode())


def fit_types(rows: Sequence[Array], pages: Sequence[LabelledPage]) -> dict[str, Any]:
    """Trees for the types of pages."""
    labels = np.array([PAGE_TYPES.index(_type_of(page)) for page in pages])
    return fit_trees(np.stack(rows), labels, type_weights(pages), TYPE_TREES, TYPE_ROUNDS)


def _type_of(page: LabelledPage) -> str:
    return page.page.page_type if page.page.page_type in PAGE_TYPES else "article"


def crosswise(
    pages: Sequence[LabelledPage], fit: Callable[[list[int]], Forest], ask: Callable[[Forest, int], Array]
) -> list[Array]:
    """For each page the answer of a forest that was shown no page of its site."""
    answers: list[Array] = [np.empty(0)] * len(pages)
    folds = [zlib.crc32(page.page.site.encode()) % FOLDS for page in pages]
    for fold in range(FOLDS):
        forest = fit([page for page, its in enumerate(folds) if its != fold])
        for page, its in enumerate(folds):
            if its == fold:
                answers[page] = ask(forest, page)
    return answers


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def train(pages: Sequence[LabelledPage]) -> dict[str, Any]:
    """The three forests."""
    described = [describe_page(page.blocks, facts_of(page), page.page.url) for page in pages]
    shares = _crosswise_types(pages, described)
    rows = [
        with_types(np.concatenate([*page.blocks.features()]), share) for page, share in zip(pages, shares, strict=True)
    ]
    first = _crosswise_blocks(pages, rows)
    _show("first judgement, pages not shown", pages, first)
    seconds = [
        with_types(np.concatenate([*add_context(page.scan, page.blocks, found)]), share)
        for page, found, share in zip(pages, first, shares, strict=True)
    ]
    return {
        "types": fit_types(described, pages),
        "first": fit_blocks(pages, rows),
        "second": fit_blocks(pages, seconds),
    }


def _crosswise_types(pages: Sequence[LabelledPage], described: Sequence[Array]) -> list[Array]:
    def fit(chosen: list[int]) -> Forest:
        return forest_of(fit_types([described[n] for n in chosen], [pages[n] for n in chosen]))

    shares = crosswise(pages, fit, lambda forest, n: _softmax(forest.scores(described[n][None])[0]))
    hits = [PAGE_TYPES[int(share.argmax())] == _type_of(page) for share, page in zip(shares, pages, strict=True)]
    print(f"page type right for {np.mean(hits):.3f} of pages not shown", flush=True)
    return shares


def _crosswise_blocks(pages: Sequence[LabelledPage], rows: Sequence[Array]) -> list[Array]:
    def fit(chosen: list[int]) -> Forest:
        return forest_of(fit_blocks([pages[n] for n in chosen], [rows[n] for n in chosen]))

    return crosswise(pages, fit, lambda forest, n: forest.probabilities(rows[n]))


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


def learned_from(pages: Sequence[GoldPage], hidden: Sequence[GoldPage]) -> list[LabelledPage]:
    """The pages of other sites than the hidden ones', each address once, where the gold is the page's own.

    WCXB's pages without an address are left out, as their site may be a hidden one; no Chinese page has an address.
    """
    sites = {page.site for page in hidden}
    apart = (page for page in pages if page.site not in sites and (page.has_address or page.is_chinese))
    chosen = {page.url: page for page in apart}
    labelled = (label_page(page) for page in chosen.values())
    return [page for page in labelled if page.f1(page.labels > 0.5) >= _LEAST_ORACLE_F1]


def _read(web: Sequence[Path], gold: Sequence[Path]) -> list[GoldPage]:
    return [page for pair in zip(web, gold, strict=True) for page in read_gold_pages(*pair)]


def main(arguments: list[str]) -> int:
    """Train on all pages but the hidden ones, write the weights."""
    samples = [WCXB, CHINESE_NEWS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_pages", description=__doc__)
    parser.add_argument("--web", type=Path, nargs="+", default=[web for web, _ in samples], metavar="WARC|FOLDER")
    parser.add_argument("--gold", type=Path, nargs="+", default=[gold for _, gold in samples], metavar="JSONL|FOLDER")
    parser.add_argument("--hidden", type=Path, nargs=2, action="append", default=[], metavar=("WEB", "GOLD"))
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args(arguments)
    reported = [page for sample in samples for page in read_gold_pages(*sample) if page.half == REPORTED]
    hidden = [page for pair in options.hidden for page in read_gold_pages(*pair)]
    pages = learned_from(_read(options.web, options.gold), reported + hidden)
    print(f"{len(pages)} pages")
    options.out.write_text(json.dumps(train(pages), separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    from benchmarks.__main__ import PEERS

    sys.path.append(str(PEERS))
    sys.exit(main(sys.argv[1:]))

"""Trees against a walk node by node, the choice against every other choice, features of the page alone."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sources.pages.blocks
from sources.pages.blocks import Blocks, find_blocks
from sources.pages.context import CONTEXT_FEATURES, add_context
from sources.pages.facts import Facts
from sources.pages.features import FEATURES
from sources.pages.judge import WEIGHTS, choose_blocks, judge_blocks
from sources.pages.page_type import PAGE_TYPES, TYPE_FEATURES
from sources.pages.scan import Scan, scan_page
from sources.pages.trees import forest_of, read_forest
from tests.sources.captures import article


def described(page: bytes) -> tuple[Scan, Blocks]:
    scan = scan_page(page)
    return scan, find_blocks(scan)


def features(blocks: Blocks) -> np.ndarray:
    return np.concatenate([*blocks.features()])


def test_a_forest_is_the_sum_of_its_trees() -> None:
    columns = json.loads(WEIGHTS.read_text())["first"]
    rows = np.random.default_rng(0).normal(2, 3, (23, len(FEATURES) + len(PAGE_TYPES))).astype(np.float32)

    def walk(row: np.ndarray, node: int) -> float:
        while node >= 0:
            side = "left" if row[columns["feature"][node]] <= np.float32(columns["threshold"][node]) else "right"
            node = columns[side][node]
        return float(columns["value"][-1 - node])

    wanted = [sum(walk(row, root) for root in columns["roots"]) for row in rows]
    np.testing.assert_allclose(forest_of(columns).scores(rows)[:, 0], wanted, rtol=1e-12)


def test_trees_too_deep_are_refused() -> None:
    nodes = list(range(8))
    chain = {
        "feature": [0] * 8, "threshold": [0.0] * 8, "left": [-1] * 8, "right": [*nodes[1:], -1], "value": [1.0],
        "roots": [0], "groups": [0], "outputs": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match="deeper"):
        forest_of(chain)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("types", len(TYPE_FEATURES)),
        ("first", len(FEATURES) + len(PAGE_TYPES)),
        ("second", len(FEATURES) + len(CONTEXT_FEATURES) + len(PAGE_TYPES)),
    ],
)
def test_the_weights_are_of_these_features(name: str, features: int) -> None:
    """A forest that asks for a feature which is not there would read another's memory."""
    forest = read_forest(WEIGHTS, name)
    assert 0.8 * features < forest.feature.max() < features


@given(
    st.lists(st.tuples(st.floats(0.01, 0.99), st.integers(0, 9)), min_size=1, max_size=7).filter(
        lambda blocks: any(words for _, words in blocks)
    )
)
def test_no_other_choice_promises_more(blocks: list[tuple[float, int]]) -> None:
    probabilities, words = (np.array(column) for column in zip(*blocks, strict=True))
    found = choose_blocks(probabilities, words)

    def promise(chosen: np.ndarray) -> float:
        return float(2 * (probabilities * words)[chosen].sum() / (words[chosen].sum() + (probabilities * words).sum()))

    others = (np.array(choice, bool) for choice in itertools.product([False, True], repeat=len(blocks)))
    assert promise(found.chosen) == pytest.approx(max(map(promise, others)))
    assert found.expected_f1 == pytest.approx(promise(found.chosen))


def test_an_empty_page_has_no_blocks() -> None:
    scan, blocks = described(b"")
    assert features(blocks).shape == (0, len(FEATURES)) and not choose_blocks(np.empty(0), blocks.words).chosen.size
    [context] = add_context(scan, blocks, np.empty(0))
    assert context.shape == (0, len(FEATURES) + len(CONTEXT_FEATURES))


def test_features_are_finite_and_the_same_each_time() -> None:
    page = article("Mills").replace(b"<p>", b"<p class='entry content'><a href=/x>link</a> ")
    (scan, first), (_, second) = described(page), described(page)
    [context] = add_context(scan, first, np.linspace(0.1, 0.9, len(first.words)))
    assert np.isfinite(context).all() and (features(first) == features(second)).all()


def test_what_a_block_is_seen_to_be() -> None:
    page = b"""<title>Mills of the north</title><nav class=top-menu><a href=/>Home</a></nav>
        <h1>Mills of the north</h1><p>It costs $4. Really, yes.</p><footer>&copy; 2020 Me</footer>"""
    _, blocks = described(page)
    seen = [dict(zip(FEATURES, row, strict=True)) for row in features(blocks).tolist()]
    menu, heading, text, footer = seen
    assert menu["in_nav"] and menu["above_nav"] and menu["links"] == 1 and menu["text_navigate"]
    assert heading["in_h1"] and heading["in_title"] == 1
    assert text["price"] == 1 and text["stops"] == 2 and text["commas"] == 1 and text["from_heading"] == 1
    assert text["in_p"] and text["links"] == 0 and text["ends_stopped"]
    assert footer["copyright"] and footer["in_footer"]


@given(
    st.lists(st.sampled_from(["a b. ", "<p>", "<div class='x y'>", "</div>", "<li>", "<a href=x>", "</a>", "中文。"]))
)
def test_blocks_share_out_the_runs(pieces: list[str]) -> None:
    scan, blocks = described("".join(pieces).encode())
    taken = [run for first, last in zip(blocks.first_run, blocks.last_run, strict=True) for run in range(first, last)]
    assert taken == list(range(len(scan.run_start)))
    assert all(np.isfinite(rows).all() for rows in add_context(scan, blocks, np.full(len(blocks.words), 0.5)))


def test_pieces_are_what_one_piece_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of all kinds, so that what a block knows of those before and behind it goes over the pieces' borders."""
    page = b"".join(
        article(f"Mill {n}") + b"<h2>More</h2><ul><li><a href=/>One</a><li>Two $3</ul>" + b"<p>a" * n for n in range(30)
    )
    scan, whole = described(page)
    wanted, judged = features(whole), judge_blocks(scan, whole, Facts(), None, "twice")
    monkeypatch.setattr(sources.pages.blocks, "PIECE_BLOCKS", 7)
    _, cut = described(page)
    assert [len(rows) for rows in cut.features()][:2] == [7, 7]
    for _ in range(2):
        np.testing.assert_array_equal(features(cut), wanted)
    np.testing.assert_array_equal(judge_blocks(scan, cut, Facts(), None, "twice").probabilities, judged.probabilities)

"""The plan as a plot: boxes as wide as the numbers say, the 4-epoch line, and the same said in words and in a table."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipelines.report.mixture import plot_mixture, table_of
from pipelines.report.page import render


def source(name: str, asked: int, given: int, worth: float, epochs: float) -> dict[str, Any]:
    return {"name": name, "tokens_asked": asked, "tokens_given": given, "tokens_effective": worth, "epochs": epochs}


SOURCES = [
    source("web", 400_000_000, 400_000_000, 4e8, 0.5),
    source("<books>", 300_000_000, 200_000_000, 1.6e8, 6.0),
    source("wiki", 100_000_000, 160_000_000, 1.5e8, 4.0),
]


def test_boxes_are_as_long_as_their_numbers_and_axes_end_at_round_ones() -> None:
    plot = plot_mixture({"sources": SOURCES})
    assert [(tick.at, tick.text) for tick in plot.token_ticks] == [
        (0, "0"), (25, "100 M"), (50, "200 M"), (75, "300 M"), (100, "400 M"),
    ]  # fmt: skip
    assert [(row.asked, row.given, row.worth) for row in plot.rows] == [(100, 100, 100), (75, 50, 40), (25, 40, 37.5)]
    most = float(plot.epoch_ticks[-1].text)
    assert most >= 6 and plot.limit.at == pytest.approx(100 * 4 / most)
    assert [row.is_above for row in plot.rows] == [False, True, False]
    assert plot.rows[2].epochs == plot.limit.at


def test_the_line_of_four_epochs_is_shown_where_nothing_is_repeated() -> None:
    plot = plot_mixture({"sources": [source("web", 10, 10, 10.0, 0.2)]})
    assert plot.limit.at <= 100 and float(plot.epoch_ticks[-1].text) >= 4


def test_the_table_has_the_plans_columns_in_their_order_and_new_ones_after_them() -> None:
    rows = [
        {"asked": "2", "source": "web", "zeal": "1", "worth": "2"},
        {"asked": "2", "source": "all", "zeal": "1", "worth": "2"},
    ]
    assert table_of(rows) == [["source", "asked", "worth", "zeal"], ["web", "2", "2", "1"], ["all", "2", "2", "1"]]


def test_the_page_draws_every_source_and_says_in_words_what_it_draws() -> None:
    row = {"asked": "400 M", "source": "web", "given": "400 M"}
    found = {"name": "run", "run": {"started_at": "", "python": "", "packages": {}}, "funnel": [], "costs": []}
    planned = {"rows": [row, {**row, "source": "all"}]}
    page = render({**found, "plans": [{"sources": SOURCES, "warnings": ["w <x>"]}], "results": {"plan": planned}})
    assert re.search(r"<th>source</th><th>asked</th><th>given</th>", page) and '<tr class="sum"><td>all</td>' in page
    assert page.count('class="plan-row" role="img"') == 3 and page.count("seen above") == 1
    assert 'aria-label="&lt;books&gt;: 300.0 M asked, 200.0 M given, worth 160.0 M; seen 6.00 times"' in page
    assert "<books>" not in page and "w &lt;x&gt;" in page


def test_stages_have_a_plot_each_of_what_they_take_and_epochs_go_on_counting() -> None:
    again = {**source("wiki", 10, 10, 5.0, 1.0), "epochs_so_far": 5.0}
    stages = [
        {"stage": "long", "sources": SOURCES, "warnings": []},
        {"stage": "anneal", "sources": [again, source("web", 0, 0, 0.0, 0.0)], "warnings": []},
    ]
    plot = plot_mixture(stages[1])
    assert [(row.name, row.is_above) for row in plot.rows] == [("wiki", True)] and "seen 5.00 times" in plot.rows[
        0
    ].told
    rows = [{"stage": "long", "source": "web"}, {"stage": "anneal", "source": "all", "so far": "5.00"}]
    found = {"name": "run", "run": {"started_at": "", "python": "", "packages": {}}, "funnel": [], "costs": []}
    page = render({**found, "plans": stages, "results": {"plan": {"rows": rows}}})
    assert page.index("<h3>Stage long</h3>") < page.index("<h3>Stage anneal</h3>") and page.count("<figure") == 2
    assert "<th>stage</th><th>source</th><th>so far</th>" in page and '<tr class="sum"><td>anneal</td>' in page

"""Which pages the weights are learned from, and which figures pages give: none of a site that is reported on."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.quality.extraction import Outcome, measures
from benchmarks.train_pages import learned_from
from benchmarks.web_pages import REPORTED, TUNING, GoldPage

TEXT = "The wheel turns slowly, and the stones grind what the farmers bring."
PAGE = GoldPage(
    url="https://mill.example/a",
    page_type="article",
    data=f"<nav><a href=/>Home</a></nav><p>{TEXT}</p>".encode(),
    charset="utf-8",
    gold=TEXT,
)


def at(url: str, **changes: str) -> GoldPage:
    return replace(PAGE, url=url, **changes)  # type: ignore[arg-type]


def test_nothing_is_learned_from_a_site_that_may_be_a_hidden_one() -> None:
    offered = [
        at("https://kept.example/a"),
        at("https://kept.example/a"),
        at("https://hidden.example/of-the-same-site"),
        at("https://no-address.invalid/0551"),
        at("https://no-address.invalid/one", page_type="Chinese news"),
        at("https://no-address.invalid/hidden", page_type="Chinese news"),
        at("https://kept.example/b", gold="What stands in no block of the page"),
    ]
    hidden = [at("https://hidden.example/"), at("https://no-address.invalid/hidden", page_type="Chinese news")]
    found = [page.page.url for page in learned_from(offered, hidden)]
    assert found == ["https://kept.example/a", "https://no-address.invalid/one"]


def test_blocks_are_labelled_by_the_share_of_their_words_in_gold() -> None:
    (page,) = learned_from([PAGE], [])
    assert page.labels.tolist() == [0.0, 1.0] and page.f1(page.labels > 0.5) == 1.0


def test_halves_are_told_apart_where_there_are_two() -> None:
    tuned, reported = at("https://a.example/", half=TUNING), at("https://b.example/", half=REPORTED)
    outcome = Outcome({tuned.url: TEXT, reported.url: ""}, {tuned.url: 0.002, reported.url: 0.004})
    both = {what: figure(outcome) for what, _, figure in measures([tuned, reported])}
    assert both["word F1, all pages"] == 0.5 and both[f"word F1, article, {REPORTED}"] == 0.0
    assert both[f"word F1, {TUNING}"] == 1.0 and both["CPU a page"] == 3.0
    unseen = [what for what, _, _ in measures([reported])]
    assert unseen == ["word F1, all pages", "word F1, article", "CPU a page", "CPU a page, 99th percentile"]

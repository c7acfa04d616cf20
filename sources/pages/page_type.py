"""Which of seven types a page is, by its address, what it says it is, and how its text is spread: the router.

Invariant: a type's probability depends on the page and its address alone. The types are those of WCXB. Wrong for one
page in five, which costs less than it seems: the judgement of blocks takes the probabilities, not the choice.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from sources.pages.blocks import Blocks
from sources.pages.facts import Facts
from sources.pages.features import PAGE_FEATURES

Array = npt.NDArray[Any]

PAGE_TYPES = ("article", "documentation", "service", "forum", "listing", "product", "collection")

_KINDS = {
    "article": ("article", "newsarticle", "blogposting", "og:article", "report"),
    "product": ("product", "og:product", "offer", "aggregateoffer", "productgroup"),
    "forum": ("discussionforumposting", "qapage", "question", "answer", "comment"),
    "collection": ("collectionpage", "itemlist", "offercatalog"),
    "service": ("service", "localbusiness", "professionalservice", "faqpage"),
    "documentation": ("techarticle", "apireference", "howto"),
    "website": ("og:website",),
    "person": ("person",),
    "review": ("review", "aggregaterating"),
}
_ADDRESSES = {
    "article": r"/(?:blog|news|article|story|stories|post|opinion|\d{4}/\d{2})s?/|\d{4}-\d{2}-\d{2}",
    "documentation": r"docs?\.|/docs?/|/(?:manual|reference|guide|tutorial|api|wiki|help|documentation|library|man)s?/"
    r"|readthedocs|\.html?(?:$|[?#])",
    "forum": r"forum|/threads?[/.]|/t/|/topic|/questions?/|/discussion|viewtopic|showthread|community|/comments/",
    "product": r"/products?/|/dp/|/item/|/p/|/shop/[^/]+/|product",
    "collection": r"/collections?/|/categor(?:y|ies)|/shop(?:/|$|\?)|/c/|/catalog|/store",
    "listing": r"/(?:list|category|tag|topics?|archive|latest|search|jobs|events|directory|news|blog)s?/?(?:$|[?#])"
    r"|page=",
    "service": r"/(?:service|solution|pricing|about|contact|plan|feature)s?",
    "tracked": r"srsltid|utm_|gclid",
}
_PATTERNS = {name: re.compile(pattern, re.I) for name, pattern in _ADDRESSES.items()}
TYPE_FEATURES = (
    *PAGE_FEATURES,
    *(f"kind_{name}" for name in _KINDS),
    *(f"address_{name}" for name in _PATTERNS),
    "address_depth", "address_last_chars", "address_hyphens", "address_digits", "descriptions", "dated", "authored",
)  # fmt: skip


def describe_page(blocks: Blocks, facts: Facts, url: str | None) -> Array:
    """One row of `TYPE_FEATURES` (float32)."""
    kinds = [any(kind in facts.kinds for kind in named) for named in _KINDS.values()]
    address = (url or "")[:1000]
    shapes = [bool(pattern.search(address)) for pattern in _PATTERNS.values()]
    path = address.partition("://")[2].partition("/")[2].partition("?")[0].strip("/")
    last = path.rpartition("/")[2]
    rest = [
        path.count("/") + bool(path), len(last), last.count("-"), sum(char.isdigit() for char in last),
        len(facts.described), facts.date is not None, facts.author is not None,
    ]  # fmt: skip
    return np.concatenate([blocks.page, kinds, shapes, rest]).astype(np.float32)

"""The passes over one article: what nests, templates that carry words, language variants, lines.

The first and the last pass are kernels over UTF-8 bytes that read each byte about once; between them Python works on
the few templates whose words are part of a sentence. Time is linear in the article whatever it holds; memory is four
times the largest article, and 5 MB.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sources.wikitext.extras import box_markup, category_line, open_galleries
from sources.wikitext.inline import expand_marked
from sources.wikitext.layout import MAX_CELLS, NO_HEADINGS, lay_out
from sources.wikitext.structure import STACK_COLUMNS, STACK_ROWS, resolve_structure
from sources.wikitext.variants import choose_variants
from sources.wikitext.vocabulary import CATEGORY_NAMESPACES, NUM_TAGS, entity_table, structure_table

_SPARE = 64


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a wiki's articles are read with. `hidden_namespaces` adds its own names of files and categories, `parts`
    is what is kept besides paragraphs: those three, `captions`, `infoboxes`, `categories`.
    """

    hidden_namespaces: frozenset[str] = field(default=frozenset())
    category_namespaces: frozenset[str] = field(default=frozenset())
    parts: frozenset[str] = frozenset(("headings", "lists", "tables"))
    markdown_headings: bool = False
    chinese_variants: tuple[str, ...] = ("zh-cn", "zh-hans", "zh", "zh-hant", "zh-tw")


class PlainText:
    """Reads one article after the other into the same buffers; one a thread."""

    def __init__(self, site: Site) -> None:
        self._site, self._parts = site, site.parts
        self._headings = NO_HEADINGS if "headings" not in site.parts else 1 + site.markdown_headings
        self._names = structure_table(site.hidden_namespaces)
        self._entities = entity_table()
        self._stack = np.empty((STACK_ROWS, STACK_COLUMNS), np.int64)
        self._unclosed = np.zeros(NUM_TAGS, np.int64)
        self._state = np.zeros(4, np.int64)
        self._heads = np.zeros((8, 2), np.int64)
        self._cells = np.zeros(MAX_CELLS + 1, np.int64)
        self._between, self._out = _buffers(1 << 16)

    def read(self, wikitext: bytes) -> str:
        """The text that a reader sees: paragraphs, headings, lists and table rows as lines."""
        if self._parts.isdisjoint(("captions", "infoboxes", "categories")):
            return self._render(wikitext)
        markup = wikitext.decode("utf-8", "replace")
        text = self._render(open_galleries(markup).encode() if "captions" in self._parts else wikitext)
        if "infoboxes" in self._parts:
            facts = self._render(box_markup(markup).encode()).splitlines()
            text = "\n".join([fact for fact in facts if fact and not fact.endswith(":")] + ["", text])
        if "categories" in self._parts:
            names = CATEGORY_NAMESPACES | self._site.category_namespaces
            text = f"{text}\n\n{category_line(markup, names)}"
        return text.strip()

    def _render(self, wikitext: bytes) -> str:
        if len(self._between) < len(wikitext) + _SPARE:
            self._between, self._out = _buffers(2 * len(wikitext))
        self._unclosed[:] = 0
        length = resolve_structure(
            np.frombuffer(wikitext or b"\n", np.uint8), len(wikitext), self._between, self._stack, self._unclosed,
            *self._names, "captions" in self._parts,
        )  # fmt: skip
        length = self._choose_words(length)
        length = lay_out(
            self._between, length, self._out, self._state, self._heads, self._cells, *self._entities,
            "tables" in self._parts, self._headings, "lists" in self._parts,
        )  # fmt: skip
        return self._out[:length].tobytes().decode("utf-8", "replace").strip()

    def _choose_words(self, length: int) -> int:
        """What Python decides on: marked templates and language variants, which few pages have."""
        data = self._between[:length].tobytes()
        if b"\x05" not in data and b"-{" not in data:
            return length
        text = expand_marked(data.decode("utf-8", "replace"))
        if "-{" in text:
            text = choose_variants(text, self._site.chinese_variants)
        data = text.encode()
        if len(self._between) < len(data) + _SPARE:
            self._between, self._out = _buffers(2 * len(data))
        self._between[: len(data)] = np.frombuffer(data, np.uint8)
        return len(data)


def _buffers(size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """For what stands between the passes, and for the last one, which may write twice as much."""
    return np.empty(size + _SPARE, np.uint8), np.empty(2 * (size + _SPARE), np.uint8)


def to_text(wikitext: str, site: Site) -> str:
    """The text of one article; for many, hold a PlainText."""
    return PlainText(site).read(wikitext.encode("utf-8", "replace"))

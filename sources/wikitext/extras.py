"""What an article's text leaves out unless it is asked for: captions of galleries, boxes of facts, categories.

Found in the markup by patterns, in one pass each; a page may have five boxes of facts, so time stays linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_GALLERY = re.compile(r"<gallery\b[^<>]*+>", re.IGNORECASE)
_GALLERY_END = re.compile(r"</gallery\s*+>", re.IGNORECASE)
_CATEGORY = re.compile(r"\[\[\s*+([^\[\]|:\n]{1,60}):\s*+([^\[\]|\n]{1,200})")
_BOX = re.compile(
    r"\{\{\s*+(?:infobox|infoboks|infokast|info/|taxobox|taxoboks|speciesbox|automatic taxobox|ficha de|карточка|"
    r"картка|infookvir|infotaula|tietolaatikko|基礎情報|정보|صندوق معلومات|جعبه اطلاعات)[^{}|\n]*+",
    re.IGNORECASE,
)
_MARK = re.compile(r"\{\{|\}\}|\[\[|\]\]|\|")
_BOXES = 5
_PICTURE = re.compile(r"\.(?:jpe?g|png|svg|gif|webp|tiff?|ogg|webm)\s*$", re.IGNORECASE)


def open_galleries(wikitext: str) -> str:
    """The markup with the captions of each gallery as lines in its place."""
    found, at = [], 0
    while begun := _GALLERY.search(wikitext, at):
        end = _GALLERY_END.search(wikitext, begun.end())
        if end is None:
            break
        lines = wikitext[begun.end() : end.start()].split("\n")
        captions = [line.partition("|")[2].strip() for line in lines]
        found += [wikitext[at : begun.start()], "\n\n", "\n\n".join(filter(None, captions)), "\n\n"]
        at = end.end()
    return "".join([*found, wikitext[at:]])


def category_line(wikitext: str, namespaces: frozenset[str]) -> str:
    """`Category: Mills, Ely`, in the wiki's own word for it; "" where a page has none."""
    found = [(space.strip(), name.strip()) for space, name in _CATEGORY.findall(wikitext)]
    named = [(space, name) for space, name in found if space.lower().replace(" ", "_") in namespaces]
    return f"{named[0][0]}: {', '.join(dict.fromkeys(name for _, name in named))}" if named else ""


def box_markup(wikitext: str) -> str:
    """The facts of the page's boxes as paragraphs `key: value` of markup, pictures left out."""
    facts = []
    at = 0
    for _ in range(_BOXES):
        box = _BOX.search(wikitext, at)
        if box is None:
            break
        arguments, at = _arguments(wikitext, box.end())
        facts += list(_facts(arguments))
    return "\n\n".join(facts)


def _facts(arguments: list[str]) -> Iterator[str]:
    for argument in arguments:
        key, equals, value = argument.partition("=")
        key, value = " ".join(key.replace("_", " ").split()), value.strip()
        if equals and key and value and not _PICTURE.search(value):
            yield f"{key}: {value}"


def _arguments(wikitext: str, start: int) -> tuple[list[str], int]:
    """The arguments of the template whose name ends at `start`, and where it ends; none if it never does."""
    found: list[str] = []
    depth, at = 1, start
    for mark in _MARK.finditer(wikitext, start):
        if mark[0] == "|":
            if depth == 1:
                found.append(wikitext[at : mark.start()])
                at = mark.end()
            continue
        depth += 1 if mark[0] in ("{{", "[[") else -1
        if depth == 0:
            return [*found, wikitext[at : mark.start()]][1:], mark.end()
    return [], len(wikitext)

"""Language-conversion markup, as the Chinese and some other wikis use it, resolved to one variant.

| markup | becomes |
|---|---|
| `-{zh-hans:软件;zh-hant:軟體}-`, `-{text}-` | the wanted variant, the text |
| conversion rules (`-{H|…}-`, `-{T|…}-`, `-{-|…}-`) | nothing |

https://www.mediawiki.org/wiki/Writing_systems/Syntax; nested rules to a depth of four, each round one linear scan.
"""

from __future__ import annotations

import re

_CONVERSION = re.compile(r"-\{([^{}]*+)\}-")
_CONVERSION_HIDDEN = frozenset("HTD-+")
_VARIANT = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,6})?")
_ROUNDS = 4


def choose_variants(text: str, wanted: tuple[str, ...]) -> str:
    """The text in the first of the wanted variants that each rule has, else in the first that it has."""
    for _ in range(_ROUNDS):
        shown = _CONVERSION.sub(lambda match: _choose_variant(match[1], wanted), text)
        if shown == text:
            break
        text = shown
    return text.replace("-{", "").replace("}-", "")


def _choose_variant(rule: str, wanted: tuple[str, ...]) -> str:
    flags, bar, rest = rule.partition("|")
    if bar and len(flags) <= 24 and "=" not in flags:
        flags = flags.strip()
        if _CONVERSION_HIDDEN.intersection(flags.upper()) and not flags.lower().startswith("zh"):
            return ""
        rule = rest
    choices: dict[str, str] = {}
    for choice in rule.split(";"):
        name, colon, words = choice.partition(":")
        name = name.rpartition("=>")[2].strip().lower()
        if colon and _VARIANT.fullmatch(name):
            choices.setdefault(name, words.strip())
    if not choices:
        return rule
    return next((choices[name] for name in wanted if name in choices), next(iter(choices.values())))

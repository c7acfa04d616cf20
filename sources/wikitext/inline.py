"""Templates that carry words of a sentence, by name, and how each is read. All others carry none.

Chosen by what stands in prose in the dumps of seven languages, not in boxes and footnotes. A rule gets the positional
and the named arguments. The first pass marks these templates in the text and drops the rest, so Python works on a few
in a hundred; innermost ones are read first, eight rounds at most, each one linear scan.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Rule = Callable[[list[str], dict[str, str]], str]
_MARKED = re.compile("\x05([^\x05\x06]*+)\x06")
_NAMED = re.compile(r"\s*([\w -]{1,30}?)\s*=(?!=)")
_RANGE_WORDS = {"to", "-", "–", "and", "or", "x", "×", "by", "+/-", "±", "to(-)", "and(-)", "bis", "à", "～", "~"}
_ROUNDS = 8


def expand_marked(text: str) -> str:
    """The text with the words of the templates that the first pass marked."""
    for _ in range(_ROUNDS):
        if "\x05" not in text:
            break
        text = _MARKED.sub(_expand, text)
    return text


def _expand(match: re.Match[str]) -> str:
    name, *arguments = match[1].split("\x04")
    return render(" ".join(name.replace("_", " ").split()).lower(), arguments)


def render(name: str, arguments: list[str]) -> str:
    """The words of the template `name` (lower case), "" if it carries none."""
    if name in _WORDS:
        return _WORDS[name]
    if name.startswith("formatnum:"):
        return name.removeprefix("formatnum:")
    if century := _CENTURY.fullmatch(name):
        return f"{century[1].upper()}e siècle{century[2] or ''}"
    rule = _RULES.get(name) or (_nth(1) if name.startswith(_TEXT_PREFIXES) else None)
    if rule is None:
        return ""
    positional: list[str] = []
    named: dict[str, str] = {}
    for argument in arguments:
        match = _NAMED.match(argument)
        if match and not match[1].isdigit():
            named[match[1].lower()] = argument[match.end() :].strip()
        else:
            positional.append((argument[match.end() :] if match else argument).strip())
    return rule(positional, named)


def _nth(number: int) -> Rule:
    """The positional argument of that number, else the last one there is, else `text=`."""

    def rule(positional: list[str], named: dict[str, str]) -> str:
        if not positional:
            return named.get("text", named.get("1", ""))
        return positional[min(number, len(positional)) - 1]

    return rule


def _joined(separator: str) -> Rule:
    return lambda positional, named: separator.join(filter(None, positional))


def _around(before: str, after: str) -> Rule:
    first = _nth(1)
    return lambda positional, named: f"{before}{found}{after}" if (found := first(positional, named)) else ""


def _convert(positional: list[str], named: dict[str, str]) -> str:
    """`5|km` and `5|to|10|km`: the number as written and its unit, without the conversion."""
    words = positional[:2]
    while len(words) >= 2 and words[-1].lower() in _RANGE_WORDS and len(positional) >= len(words) + 2:
        words = positional[: len(words) + 2]
    return " ".join(filter(None, words))


def _value(positional: list[str], named: dict[str, str]) -> str:
    unit = named.get("u", named.get("ul", ""))
    exponent = named.get("e", "")
    return (
        (positional[0] if positional else "") + (f"×10^{exponent}" if exponent else "") + (f" {unit}" if unit else "")
    )


def _fraction(positional: list[str], named: dict[str, str]) -> str:
    if len(positional) == 1:
        return f"1/{positional[0]}"
    return " ".join([*positional[:-2], "/".join(positional[-2:])])


def _with_reading(positional: list[str], named: dict[str, str]) -> str:
    """`{{nihongo|English|漢字|romaji}}`: the first, the others behind it in brackets."""
    rest = ", ".join(filter(None, positional[1:3]))
    return f"{positional[0]} ({rest})" if rest and positional[0] else rest or "".join(positional[:1])


def _as_of(positional: list[str], named: dict[str, str]) -> str:
    months = "January February March April May June July August September October November December".split()
    words = [months[int(word) - 1] if i == 1 and word.isdigit() and 0 < int(word) < 13 else word
             for i, word in enumerate(positional[:3])]  # fmt: skip
    return " ".join(["as of" if "lc" in named else "As of", *reversed(words)])


def _date(positional: list[str], named: dict[str, str]) -> str:
    return "-".join(part.zfill(2) if part.isdigit() else part for part in positional[:3])


def _translated_link(positional: list[str], named: dict[str, str]) -> str:
    """`{{tsl|en|English|中文|shown}}`."""
    return next(filter(None, reversed(positional[:4])), "")


def _century(positional: list[str], named: dict[str, str]) -> str:
    return f"{positional[0]}e siècle" if positional else ""


def _reading(positional: list[str], named: dict[str, str]) -> str:
    """`{{読み仮名|漢字|かんじ}}`."""
    return f"{positional[0]}（{positional[1]}）" if len(positional) > 1 else "".join(positional)


_CENTURY = re.compile(r"([ivxlc]{1,7})e siècle( .{1,20})?")
_TEXT_PREFIXES = ("lang-", "link-", "internal link helper/")

_WORDS = {
    "ndash": " – ", "–": " – ", "snd": " – ", "spnd": " – ", "spaced ndash": " – ", "mdash": "—", "—": "—",
    "spaced mdash": " — ", "!": "|", "=": "=", "'": "'", "'s": "'s", "`": "`", "nbsp": " ", "space": " ", "thinsp": " ",
    "·": " · ", "•": " • ", "dot": " · ", "bull": " • ", "bullet": " • ", "pi": "π", "okina": "ʻ", "hamza": "ʼ",
    "1er": "1er", "1re": "1re", "n°": "n° ", "p.": "p. ", "m.": "M.", "mme": "Mme", "dr": "Dr", "bc": "BC", "ad": "AD",
    "yes": "Yes", "no": "No", "won": "Won", "nom": "Nominated", "et al.": "et al.", "et al": "et al.", "euro": "€",
    "#": "#", "(": "{", ")": "}", "infinity": "∞", "degree": "°", "av. j.-c.": "av. J.-C.", "ap. j.-c.": "apr. J.-C.",
}  # fmt: skip

_FIRST = """
    nowrap, nobr, nowr, small, smaller, big, bigger, large, larger, abbr, abbrlink, tooltip, sic, em, strong, var, kbd,
    samp, code, mono, tt, char, unicode, mvar, math, linktext, nbhyph, strikethrough, not a typo, visible anchor,
    vanchor, anchored text, flag, flagcountry, fb, nft, cr, center, left, right, nts, number, smallcaps, sc, gray,
    angbr, dfn, quote, quotation, blockquote, cquote, rquote, bquote, poemquote, poem, citat, zitat, citaat, verse,
    citazione,
    ill, interlanguage link, iw, ilh, le, lien, link, wl, нп3, нп5, не переведено, 仮リンク, ruby, ruby-ja, ルビ,
    exp, ind, lc, uc, ucfirst, lcfirst, hanja, lj, lzh, jpn, ja, iast, bibleverse, nihongo2, key press, button, menu,
    underline, overline, formatnum, nombre, s num, block indent, coloured, colored, mathnormal, keypress
"""
_SECOND = """
    lang, langx, llang, transl, transliteration, color, colour, font color, fontcolor, textcolor, text color, sort,
    native name, background color, script/arabic, script/hebrew, bg, wikt-lang
"""
_BY_RULE: tuple[tuple[Rule, str], ...] = (
    (_nth(1), _FIRST),
    (_nth(2), _SECOND),
    (_convert, "convert, cvt, convertir, unité, unidad, maß"),
    (_value, "val, num"),
    (_fraction, "frac, fraction, sfrac, bruch"),
    (_with_reading, "nihongo"),
    (_reading, "読み仮名"),
    (_as_of, "as of"),
    (_around("c. ", ""), "circa, c., ca, ca."),
    (_around("„", "“"), '"'),
    (_around("« ", " »"), "citation, guil"),
    (_date, "dts, start date, end date, date table sorting, film date"),
    (_joined(" "), "sortname, jdate, uss, hms, ship, usns, rms, ss, mv"),
    (_joined(" "), "date, date-, date de naissance, date de décès, naissance, décès"),
    (_joined(" · "), "hlist, flatlist"),
    (_translated_link, "tsl, translink"),
    (_century, "s, siècle, s-"),
)
_RULES: dict[str, Rule] = {name.strip(): rule for rule, names in _BY_RULE for name in names.split(",")}
_NUMERALS = "i ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx xxi".split()

TEMPLATE_NAMES = (*_WORDS, *_RULES, *(f"{numeral}e siècle" for numeral in _NUMERALS))
TEMPLATE_PREFIXES = (*_TEXT_PREFIXES, "formatnum:", *(f"{numeral}e siècle " for numeral in _NUMERALS))

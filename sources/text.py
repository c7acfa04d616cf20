r"""The one normal form of a document's text, whatever it was read from.

Invariant: the result is valid UTF-8 without NUL, control characters or carriage returns; normalising it again changes
nothing; words are never added or removed.

NFC: the same word in two canonical spellings is one word to deduplication, language identification and the tokenizer.
Nearly all text is NFC already, and checking costs 2 ns a character. NFKC is not used: it would turn x² into x2.
Trailing blanks and runs of empty lines stay, because they can mean something in code.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

from storage.schema import encode

_REPLACED: dict[int, str | None] = {code: None for code in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0xFEFF)}
_REPLACED |= {ord("\t"): "\t", ord("\n"): "\n", 0x0B: "\n", 0x0C: "\n", 0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
_TRANSLATED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_STOPS = re.compile("[ \n\u3002\uff0c]")
_STOP_SHARE, _MARGIN = 0.01, 10
"""A blank, line end or stop in a hundred bytes, and hardly any when read the other way round."""


def wide_encoding(sample: bytes) -> str | None:
    """Python's name of the encoding if these bytes are UTF-16: by its mark, or by the blanks and stops in it."""
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if 0 not in sample:
        return None
    little, big = (len(_STOPS.findall(sample.decode(name, "ignore"))) for name in ("utf-16-le", "utf-16-be"))
    if max(little, big) < _STOP_SHARE * len(sample) or min(little, big) * _MARGIN > max(little, big):
        return None
    return "utf-16-le" if little > big else "utf-16-be"


def normalise_text(text: str) -> str:
    """NFC, `\\n` for every line end, no controls but tab and newline, U+FFFD for lone surrogates, outer blanks off."""
    if _TRANSLATED.search(text):
        text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_REPLACED)
    if not text.isascii():
        text = unicodedata.normalize("NFC", _without_surrogates(text))
    return text.strip()


def _without_surrogates(text: str) -> str:
    """Encoding is the quickest way to see that there are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return encode(text).decode()
    return text


def normalise_line(text: str | None) -> str | None:
    """A title: the normal form on one line, None when nothing is left."""
    return " ".join(normalise_text(text).split()) or None if text else None

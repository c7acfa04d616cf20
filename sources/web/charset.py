"""Bytes of a web page to text, whatever the page says about its own encoding.

Invariant: decoding never raises; what fits no encoding becomes U+FFFD.

What the bytes are counts more than what the page claims. Valid UTF-8 with any non-ASCII character is UTF-8: other
encodings fall into its pattern by chance about once in 10^4 pages. So is what is valid but for some damage (`é` again
and again would be Korean). After that every claim (HTTP header, meta tag, detector) is tried, multi-byte encodings
first, because a single-byte encoding accepts any bytes and servers announce ISO-8859-1 for everything: 29 of the 40
pages of a Chinese news sample are GB18030 without saying so. Of single-byte encodings the first that gives words is
taken: Russian read as Latin is words of accents alone, KOI8 as Windows-1251 has capitals behind small letters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

_PIECE_BYTES = 1 << 20
_META_WINDOW_BYTES = 4096
_META_CHARSET = re.compile(
    rb"""<(?:meta|\?xml)\b[^>]{0,512}?(?:charset|encoding)\s{0,9}=\s{0,9}["']?\s{0,9}([\w.:-]{2,40})""", re.I
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
_WIDE_STARTS = (
    (b"<\x00\x00\x00", "utf-32-le"), (b"\x00\x00\x00<", "utf-32-be"), (b"<\x00", "utf-16-le"), (b"\x00<", "utf-16-be"),
)  # fmt: skip
"""How a page in two or four bytes a character begins without a mark of their order."""
_SINGLE_BYTE = re.compile(r"(iso8859|iso-8859|cp125|windows-125|windows-874|koi8|latin|ascii|mac|ibm)", re.I)
# Python's names for encodings of the WHATWG standard whose common supersets browsers use.
_SUPERSETS = {
    "gbk": "gb18030", "gb2312": "gb18030", "big5": "big5hkscs", "euc_kr": "cp949", "euc-kr": "cp949",
    "shift_jis": "cp932", "iso-8859-1": "cp1252", "koi8-r": "koi8-u",
}  # fmt: skip
_TOLERATED_DAMAGE = 0.01
"""U+FFFD per character up to which a multi-byte claim is believed: truncated or spliced pages keep their encoding."""
_MOST_DAMAGE = 0.25
"""U+FFFD per character beyond ASCII: a page in English with three umlauts is no damaged UTF-8."""
_SAMPLE = 30_000
_TAGS = re.compile(r"<[^<>]{0,2000}>")
_FOREIGN_WORD = re.compile(r"[^\W\d_]*[^\W\d_\x00-\x7f][^\W\d_]*")
_SYMBOL_IN_WORD = re.compile(r"[A-Za-z][\xa1-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf\xd7\xf7][A-Za-z]")
_PAIRS: re.Pattern[bytes] = re.compile(rb"[\xa1-\xfe][\xa1-\xfe]")
_LATIN_DEFAULTS = ("cp1252", "iso8859-1")
"""What servers announce without having looked."""


def encode_html(data: bytes, announced: str | None = None) -> bytes:
    """The page in UTF-8 without NUL; one that is so already is not copied."""
    if not data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and b"\x1b$" not in data:
        if _is_utf8(data):
            return data.replace(b"\x00", b"") if b"\x00" in data else data
    return decode_html(data, announced).replace("\x00", "").encode("utf-8", "replace")


def _is_utf8(data: bytes) -> bool:
    """Looked at in pieces: as one text a page with an emoji takes four bytes a character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _PIECE_BYTES):
            decoder.decode(data[start : start + _PIECE_BYTES], final=start + _PIECE_BYTES >= len(data))
    except UnicodeDecodeError:
        return False
    return True


def decode_html(data: bytes, announced: str | None = None) -> str:
    """The text of a page; `announced` is the charset of the HTTP header."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(encoding, "replace")
    for start, encoding in _WIDE_STARTS:
        if data.startswith(start):
            return data.decode(encoding, "replace")
    if b"\x1b$" in data and (text := _decode_iso_2022_jp(data)):
        return text
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_claims(data, list(_claims(data, announced)))


def _decode_iso_2022_jp(data: bytes) -> str | None:
    """Japanese in escape sequences, which is valid ASCII and UTF-8 too; None if it is not."""
    try:
        return data.decode("iso2022_jp")
    except UnicodeDecodeError:
        return None


def _decode_claims(data: bytes, claims: list[str]) -> str:
    """As UTF-8 with some damage, if it fits; by the multi-byte claim that fits best; else by a single-byte one."""
    if _fits(text := data.decode("utf-8", "replace")):
        return text
    multi_byte = [claim for claim in claims if not _SINGLE_BYTE.match(claim)]
    if _is_korean(data):
        multi_byte.insert(0, "cp949")
    texts = [data.decode(claim, "replace") for claim in multi_byte]
    best = min(texts, key=lambda text: text.count("\ufffd"))
    return best if _fits(best) else _decode_single_byte(data, [claim for claim in claims if _SINGLE_BYTE.match(claim)])


def _fits(text: str) -> bool:
    damage = text.count("\ufffd")
    beyond_ascii = len(text) - len(text.encode("ascii", "ignore"))
    return bool(damage <= _TOLERATED_DAMAGE * len(text) and damage <= _MOST_DAMAGE * beyond_ascii)


def _is_korean(data: bytes) -> bool:
    """Pairs of high bytes that are nearly all hangul of KS X 1001: Chinese in GB 2312 has half of its beyond."""
    pairs = _PAIRS.findall(data[:_SAMPLE])
    syllables = sum(0xB0 <= pair[0] <= 0xC8 for pair in pairs)
    ideographs = sum(pair[0] > 0xC8 for pair in pairs)
    return bool(syllables >= 10 and syllables > 20 * ideographs and syllables > len(pairs) / 2)


def _decode_single_byte(data: bytes, claims: list[str]) -> str:
    """By the first claim that gives words; servers' defaults come after what was detected."""
    defaults = [claim for claim in claims if claim in _LATIN_DEFAULTS]
    ordered = [*(claim for claim in claims if claim not in _LATIN_DEFAULTS), *defaults]
    for encoding in dict.fromkeys([*ordered, "cp1252", "cp1251", "koi8-u"]):
        text = data.decode(encoding, "replace")
        if not _is_garbled(text[:_SAMPLE]):
            return text
    return data.decode([*claims, "cp1252"][0], "replace")


def _is_garbled(text: str) -> bool:
    """Whether more than a fifth of the words with letters beyond ASCII are such as no language has."""
    shown = _TAGS.sub(" ", text)
    words = _FOREIGN_WORD.findall(shown)
    strange = sum(map(_is_strange, words)) + len(_SYMBOL_IN_WORD.findall(shown))
    return strange > 2 and strange > 0.2 * len(words)


def _is_strange(word: str) -> bool:
    """Capitals after small letters, Latin letters beside others, or only accented Latin ones."""
    if any(first.islower() and second.isupper() for first, second in zip(word, word[1:], strict=False)):
        return True
    accented = sum("\xc0" <= char <= "\u024f" for char in word)
    if accented == len(word):
        return len(word) > 1
    plain = sum(char.isascii() for char in word)
    return plain > 0 and plain + accented < len(word)


def _claims(data: bytes, announced: str | None) -> Iterator[str]:
    """Python encoding names, most trusted first, without repeats."""
    meta = _META_CHARSET.search(data, 0, _META_WINDOW_BYTES)
    detected = detect_encoding(data)
    seen: set[str] = set()
    for claim in (announced, meta and meta[1].decode("ascii", "replace"), detected, "utf-8"):
        name = _python_name(claim) if claim else None
        if name and name not in seen:
            seen.add(name)
            yield name


def _python_name(claim: str) -> str | None:
    """The decoder for a claimed charset, or None if there is no such text encoding."""
    standard = map_encoding_to_html5(claim.strip(), fallback_utf8=False) or claim.strip()
    name = _SUPERSETS.get(standard.lower(), standard)
    try:
        info = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    return info.name if info._is_text_encoding and info.name not in _UNSAFE else None


_UNSAFE = {"utf-7", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"}

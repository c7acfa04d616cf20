"""Plain text to documents: a file each, or what stands between separators; streamed, in any encoding.

Invariant: a document is whole or a failure, never a beginning. What no charset rule knows becomes U+FFFD.

A file's encoding is found once, by its first 256 KB, and what is not UTF-8 is turned into it while it is read, so that
short pieces need not be guessed at. `offset` and `length` then count bytes of that form.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from itertools import chain
from urllib.parse import unquote

from sources.compression import Gap, stream
from sources.cutting import LostPiece, Piece, cut, peek
from sources.files import open_raw
from sources.reading import Place, RawInput, ReadConfig, Reading
from sources.text import wide_encoding
from sources.watch import begins
from sources.web.charset import decode_html
from storage.errors import InputError
from storage.identity import offset_doc_id

PACKAGES = ("resiliparse",)
SEPARATOR = "?separator="
LINE, BLANK_LINE = "line", "blank_line"
ENCODINGS = (
    "gb18030", "big5hkscs", "cp949", "cp932", "euc_jp", "iso2022_jp", "cp1252", "cp1251", "koi8-u", "cp1250", "cp1253",
    "cp1254", "cp1255", "cp1256", "iso8859-2",
)  # fmt: skip
"""What a file may be in that is not UTF-8 or UTF-16."""
_SAMPLE_BYTES = 256 << 10


def split_text_name(text: str) -> tuple[str, str | None]:
    """`PATH?separator=TEXT` → (path, separator); `%0A` and the like stand for what is hard to type."""
    path, mark, separator = text.partition(SEPARATOR)
    if mark and not separator:
        raise InputError(
            "the separator is empty", at=text, hint=f"write `{LINE}`, `{BLANK_LINE}`, or what stands between documents"
        )
    return path, unquote(separator) or None


def read_text(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of a text file (plain, gzip, bzip2, zstd, xz)."""
    with open_raw(raw) as file:
        for piece in _pieces(stream(file), raw.separator, config.max_page_bytes):
            if isinstance(piece, LostPiece):
                yield _lost(piece, raw)
            else:
                place = Place(raw.source, raw.name, piece.offset, len(piece.content))
                doc_id = offset_doc_id(raw.source, file=raw.name, offset=piece.offset)
                yield begins(place) or place.document(doc_id, decode_html(piece.content), licence=raw.licence)


def _lost(piece: LostPiece, raw: RawInput) -> Reading:
    more = "; say what stands between documents: `?separator=<|endoftext|>`" if raw.separator is None else ""
    hint = more if piece.reason == "page_too_large" else ""
    return Place(raw.source, raw.name, piece.offset).failure(piece.reason, piece.detail + hint)


def _pieces(chunks: Iterable[bytes | Gap], separator: str | None, limit: int) -> Iterator[Piece | LostPiece]:
    """The documents of a file; empty ones are none."""
    beginning, chunks = peek(chunks, _SAMPLE_BYTES)
    encoding = _encoding_of(beginning)
    text = _to_utf8(chunks, encoding) if encoding else chunks
    if separator == BLANK_LINE:
        found = _join_lines(cut(text, b"\n", limit), limit)
    elif separator is None:
        found = _whole(text, limit)
    else:
        found = cut(text, b"\n" if separator == LINE else separator.encode(), limit)
    yield from (piece for piece in found if isinstance(piece, LostPiece) or piece.content.strip())


def _encoding_of(sample: bytes) -> str | None:
    """Python's name of the encoding; None for UTF-8, and where every document is judged for itself."""
    if wide := wide_encoding(sample):
        return wide
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        decoded = decode_html(sample)
        return next((name for name in ENCODINGS if sample.decode(name, "replace") == decoded), None)
    return None


def _to_utf8(chunks: Iterable[bytes | Gap], encoding: str) -> Iterator[bytes | Gap]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for chunk in chunks:
        yield chunk if isinstance(chunk, Gap) else decoder.decode(chunk).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _whole(chunks: Iterable[bytes | Gap], limit: int) -> Iterator[Piece | LostPiece]:
    """The file as one piece; what was lost of it is all that is said of one that is damaged."""
    held, size = bytearray(), 0
    for chunk in chunks:
        if isinstance(chunk, Gap):
            yield LostPiece(chunk.offset, f"{chunk.reason}_compression", chunk.detail)
            return
        size += len(chunk)
        held += chunk if size <= limit else b""
    if size > limit:
        yield LostPiece(0, "page_too_large", f"the file has {size} bytes, the limit for a document is {limit}")
    else:
        yield Piece(1, 0, bytes(held))


def _join_lines(lines: Iterable[Piece | LostPiece], limit: int) -> Iterator[Piece | LostPiece]:
    """Lines up to the next blank one as one piece; one with a lost line is lost."""
    held: list[bytes] = []
    number, offset, size, lost = 1, 0, 0, False
    for line in chain(lines, [Piece(0, 0, b"")]):
        if isinstance(line, LostPiece):
            lost = True
            yield line
        elif line.content.strip():
            offset = offset if size else line.offset
            size += len(line.content) + 1
            held += [line.content] if size <= limit + 1 else []
        else:
            if size and not lost:
                yield _joined(number, offset, size - 1, held, limit)
            number, held, size, lost = number + (size > 0), [], 0, False


def _joined(number: int, offset: int, size: int, lines: list[bytes], limit: int) -> Piece | LostPiece:
    if size > limit:
        return LostPiece(offset, "page_too_large", f"number {number} has {size} bytes, the limit is {limit}")
    return Piece(number, offset, b"\n".join(lines))

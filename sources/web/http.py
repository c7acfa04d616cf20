"""HTTP messages as crawlers kept them: status, headers, and the payload with its encodings undone.

Invariant: no more than `limit` bytes of payload are ever held, whatever they expand to, at any step of a chain.

Headers are believed where the bytes agree: crawlers often keep `Content-Encoding: gzip` over what they unpacked, or
pack twice what is announced once. A payload that ends early is taken as far as it goes, as browsers do; one that is
damaged in the middle is not (brotli has no checksum to tell).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from sources.codecs import ERRORS, Brotli, Decompressor, Deflate, Zstd
from sources.compression import is_binary
from sources.web.warc_records import MAX_HEADER_BYTES, parse_headers

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})(?!\d)")
_CHUNK = re.compile(rb"[ \t]{0,16}([0-9a-fA-F]{1,16})[ \t]{0,16}(?:;[^\r\n]{0,4096})?\r?\n")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SAMPLE_BYTES = 256
_MOST_GZIPS = 2
"""Times that a payload is unpacked beyond what its headers say."""


class BadMessage(Exception):
    """A message that cannot be read; `reason` is a failure's."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Message:
    """An HTTP response. Header names are lower case; of headers that come twice the first counts. `body` is encoded."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_message(block: bytes) -> Message:
    """The message in a record's block. Raises BadMessage."""
    found = _STATUS.match(block)
    if found is None:
        raise BadMessage("no_http_status", f"no HTTP status line, but {block[:40]!r}")
    end, body = _find_body(block)
    return Message(int(found[1]), parse_headers(block[:end]), block[body:])


def _find_body(block: bytes) -> tuple[int, int]:
    """Where the headers end and the body begins; lines may end in LF alone, and a message may be headers only."""
    crlf = block.find(b"\r\n\r\n", 0, MAX_HEADER_BYTES)
    lf = block.find(b"\n\n", 0, MAX_HEADER_BYTES if crlf < 0 else crlf)
    if lf >= 0:
        return lf, lf + 2
    if crlf >= 0:
        return crlf, crlf + 4
    if len(block) >= MAX_HEADER_BYTES:
        raise BadMessage("bad_http_message", f"no empty line ends the HTTP headers within {MAX_HEADER_BYTES} bytes")
    return len(block), len(block)


def decode_payload(message: Message, limit: int) -> bytes:
    """The body with chunks joined and encodings undone. Raises BadMessage, for more than `limit` bytes too."""
    body, transfer = message.body, _codings(message.headers.get("transfer-encoding", ""))
    if "chunked" in transfer:
        body = _join_chunks(body)
    for coding in reversed(_codings(message.headers.get("content-encoding", "")) + transfer):
        if decoder := _DECODERS.get(coding):
            body = _undo(body, decoder(body), coding, limit)
        elif coding in _UNKNOWN:
            raise BadMessage("unknown_content_encoding", f"payloads in `{coding}` cannot be decoded")
    for _ in range(_MOST_GZIPS):
        if body.startswith(_GZIP):
            body = _undo(body, Deflate(), "gzip", limit)
    if len(body) > limit:
        raise BadMessage("page_too_large", f"the payload has {len(body)} bytes, the limit is {limit}")
    return body


def _codings(header: str) -> list[str]:
    return [coding for word in header.split(",") if (coding := word.strip(" \"'").lower())] if header else []


def _join_chunks(body: bytes) -> bytes:
    """The chunks' content; what is not in chunks (crawlers undo them) as it is. Trailers are left out."""
    pieces, at = [], 0
    while (found := _CHUNK.match(body, at)) and (size := int(found[1], 16)):
        pieces.append(body[found.end() : found.end() + size])
        at = found.end() + size
        at += 2 if body.startswith(b"\r\n", at) else 1 if body.startswith(b"\n", at) else 0
    if found is None and at < len(body) and pieces:
        raise BadMessage("bad_transfer_encoding", f"no chunk begins at byte {at} of the body")
    return b"".join(pieces) if pieces or found else body


def _gzip(body: bytes) -> Decompressor | None:
    return Deflate() if body.startswith(_GZIP) else None


def _deflate(body: bytes) -> Decompressor:
    """With zlib's head, as the standard says, or without, as others took it."""
    has_head = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return Deflate(15 if has_head else -15)


def _zstd(body: bytes) -> Decompressor | None:
    return Zstd() if body.startswith(_ZSTD) else None


_DECODERS: dict[str, Callable[[bytes], Decompressor | None]] = {
    "gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "zstd": _zstd, "br": lambda _: Brotli(),
}  # fmt: skip
_UNKNOWN = ("compress", "x-compress", "dcb", "dcz")
"""Encodings that exist and that nobody here undoes; other words (servers write `utf-8`) mean nothing."""


def _undo(body: bytes, codec: Decompressor | None, coding: str, limit: int) -> bytes:
    """The decoded body, or the body where it is not encoded so. Raises BadMessage."""
    try:
        found = _unpack(body, codec, limit) if codec else None
    except ERRORS as error:
        found, why = None, f": {error}"
    else:
        why = ""
    if found is not None:
        return found
    if not _is_text(body):
        detail = f"the payload is not in `{coding}`, as its HTTP headers say, or is damaged{why}"
        raise BadMessage("bad_content_encoding", detail)
    return body


def _unpack(body: bytes, codec: Decompressor, limit: int) -> bytes | None:
    """What `body` decodes to, as far as it goes; None for text that a codec without a magic took for its own."""
    pieces, size, data = [], 0, body
    while not codec.eof and (data or not codec.needs_input):
        piece, data = codec.decompress(data, limit + 1), b""
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise BadMessage("page_too_large", f"more than {limit} bytes once decoded")
        if codec.eof and codec.unused_data.startswith(_GZIP):
            codec, data = Deflate(), codec.unused_data
    return b"".join(pieces) if codec.eof or not _is_text(body) else None


def _is_text(body: bytes) -> bool:
    """Whether this begins like a page, or as no compressed bytes do."""
    head = body[:_SAMPLE_BYTES]
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return True
    return not is_binary(head) and "\ufffd" not in head.decode("utf-8", "replace")[:-4]

"""Payloads of HTTP messages: every encoding and their chains, what crawlers undid, and limits."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sources.web.http import BadMessage, decode_payload, parse_message

PAGE = b"<html><body>" + b"<p>The mill grinds corn.</p>" * 40
LIMIT = 10_000
ENCODERS = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "x-gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "raw deflate": lambda data: zlib.compress(data, wbits=-15),
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
}


def chunks(data: bytes, *sizes: int, trailer: bytes = b"") -> bytes:
    """`data` in chunks of these sizes, the rest as the last one."""
    pieces, at = [], 0
    for size in (*sizes, len(data)):
        if piece := data[at : at + size]:
            pieces.append(b"%X;name=value\r\n%s\r\n" % (len(piece), piece))
        at += size
    return b"".join(pieces) + b"0\r\n" + trailer + b"\r\n"


def decode(body: bytes, *headers: str, limit: int = LIMIT) -> bytes:
    head = "".join(f"{header}\r\n" for header in headers)
    return decode_payload(parse_message(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body), limit)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoding_is_undone(name: str) -> None:
    assert decode(ENCODERS[name](PAGE), f"Content-Encoding: {name.split()[-1]}") == PAGE


@pytest.mark.parametrize("outer", ENCODERS)
@pytest.mark.parametrize("inner", ENCODERS)
def test_two_encodings_in_chunks_are_undone(inner: str, outer: str) -> None:
    body = chunks(ENCODERS[outer](ENCODERS[inner](PAGE)), 1, 7, 100, trailer=b"Digest: x\r\nExpires: never\r\n")
    named = f"Content-Encoding: {inner.split()[-1]}, {outer.split()[-1]}"
    assert decode(body, named, "Transfer-Encoding: chunked") == PAGE


def test_transfer_encodings_come_off_first() -> None:
    body = chunks(gzip.compress(brotli.compress(PAGE), mtime=0), 50)
    assert decode(body, "Content-Encoding: br", "transfer-encoding: GZIP, chunked") == PAGE


@pytest.mark.parametrize("name", ENCODERS)
def test_what_crawlers_undid_is_taken_as_it_is(name: str) -> None:
    assert decode(PAGE, f"Content-Encoding: {name.split()[-1]}", "Transfer-Encoding: chunked") == PAGE


def test_a_page_packed_twice_but_announced_once_is_unpacked() -> None:
    assert decode(gzip.compress(gzip.compress(PAGE)), "Content-Encoding: gzip") == PAGE


def test_members_of_gzip_follow_each_other() -> None:
    assert decode(gzip.compress(PAGE) + gzip.compress(PAGE), "Content-Encoding: gzip") == PAGE + PAGE


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_what_ends_early_is_taken_as_far_as_it_goes(name: str) -> None:
    page = PAGE + bytes(range(33, 127)) * 4
    packed = ENCODERS[name](page)
    found = decode(packed[:-30], f"Content-Encoding: {name}")
    assert page.startswith(found) and len(found) > 500


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_damage_in_the_middle_is_a_failure(name: str) -> None:
    packed = bytearray(ENCODERS[name](bytes(range(256)) * 20))
    packed[len(packed) // 2 :] = bytes(255 - byte for byte in packed[len(packed) // 2 :])
    with pytest.raises(BadMessage) as error:
        decode(bytes(packed), f"Content-Encoding: {name}")
    assert error.value.reason == "bad_content_encoding"


def test_chunks_that_stop_making_sense_are_a_failure() -> None:
    with pytest.raises(BadMessage) as error:
        decode(b"5\r\nhello\r\nXYZ\r\nworld", "Transfer-Encoding: chunked")
    assert error.value.reason == "bad_transfer_encoding"


@pytest.mark.parametrize("name", ["compress", "dcz"])
def test_encodings_that_nobody_undoes_are_named(name: str) -> None:
    with pytest.raises(BadMessage) as error:
        decode(b"\x1f\x9d\x90", f"Content-Encoding: {name}")
    assert error.value.reason == "unknown_content_encoding"


def test_words_that_are_no_encodings_mean_nothing() -> None:
    assert decode(PAGE, "Content-Encoding: UTF-8") == PAGE


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "identity"])
def test_bombs_stop_at_the_limit(name: str) -> None:
    with pytest.raises(BadMessage) as error:
        decode(ENCODERS[name](bytes(5_000_000)), f"Content-Encoding: {name.split()[-1]}")
    assert error.value.reason == "page_too_large"


@given(body=st.binary(max_size=300), name=st.sampled_from(sorted(ENCODERS)), chunked=st.booleans())
def test_any_bytes_give_a_payload_or_a_reason(body: bytes, name: str, chunked: bool) -> None:
    transfer = ("Transfer-Encoding: chunked",) if chunked else ()
    try:
        assert len(decode(body, f"Content-Encoding: {name}", *transfer)) <= LIMIT
    except BadMessage as error:
        assert error.reason

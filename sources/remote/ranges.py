"""Bytes of remote files by range, asked for politely and again until they are whole.

Over HTTP a range counts only if the server says that it sent that range (206, Content-Range) and every byte came; 429,
5xx, stalls, resets and short bodies are tried again after a pause that doubles, or that `Retry-After` names. Any
other protocol goes through fsspec. What cannot succeed (403, 404) is refused at once.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import httpx

from sources.remote.places import filesystem_of
from storage.errors import InputError

Result = TypeVar("Result")

AGENT = "gristmill (data curation; one connection a worker, honours Retry-After)"
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_MD5 = re.compile(r"[0-9a-f]{32}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often a request is made, and how long is waited: before the next one, for a byte, and for a whole range."""

    attempts: int = 8
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 60.0
    silence_seconds: float = 30.0
    range_seconds: float = 600.0


PATIENCE = Patience()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a server says of a file: `size` in bytes, its ETag without quotes, its MD5 (32 hex digits), whether it sends
    ranges."""

    size: int
    etag: str | None
    md5: str | None
    ranges: bool


class Refused(InputError):
    """The server answers that this cannot be had."""


class _Passing(Exception):
    """A request failed in a way that may pass; the server may have named a pause."""

    def __init__(self, what: str, pause_seconds: float | None = None) -> None:
        super().__init__(what)
        self.pause_seconds = pause_seconds


def read_facts(url: str) -> Facts:
    """Size and ETag of a remote file. Raises InputError where it is not there, or nothing answers."""
    return _patiently(url, lambda: _http_facts(url) if _is_http(url) else _other_facts(url))


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes `start` up to `stop` of a remote file, all of them. Raises InputError."""
    return _patiently(url, lambda: _http_range(url, start, stop) if _is_http(url) else _other_range(url, start, stop))


def read_whole(url: str, *, limit_bytes: int) -> bytes:
    """A small remote file, such as a list. Raises InputError for one above the limit."""
    size = read_facts(url).size
    if size > limit_bytes:
        raise InputError(f"this list has {size:,} bytes; {limit_bytes:,} may be", at=url)
    return read_range(url, 0, size)


def read_answer(url: str, *, limit_bytes: int) -> bytes:
    """The body that an HTTP server answers, "" where it says that there is nothing (404). Raises InputError."""
    pieces: list[bytes] = []

    def attempt() -> bytes:
        pieces.clear()
        _stream(url, {}, _within(pieces, limit_bytes, url), limit=None)
        return b"".join(pieces)

    try:
        return _patiently(url, attempt)
    except Refused as error:
        if "status 404" in error.what:
            return b""
        raise


def _within(pieces: list[bytes], limit_bytes: int, url: str) -> Callable[[bytes], None]:
    came = [0]

    def add(piece: bytes) -> None:
        pieces.append(piece)
        came[0] = came[0] + len(piece) if len(pieces) > 1 else len(piece)
        if came[0] > limit_bytes:
            raise Refused(f"the answer has more than {limit_bytes:,} bytes", at=url)

    return add


def stream_whole(url: str, write: Callable[[bytes], object], restart: Callable[[], object]) -> None:
    """A whole file of a server that sends no ranges: every attempt begins anew, after a call of `restart`."""

    def attempt() -> None:
        restart()
        _stream(url, {}, write, limit=None)

    _patiently(url, attempt)


def _patiently(url: str, attempt: Callable[[], Result]) -> Result:
    pause = PATIENCE.first_pause_seconds
    for left in reversed(range(PATIENCE.attempts)):
        try:
            return attempt()
        except _Passing as failed:
            if not left:
                raise InputError(
                    f"gave up after {PATIENCE.attempts} attempts: {failed}",
                    at=url,
                    hint="what was read is kept: run the same command again when the server answers",
                ) from failed
            wanted = pause * random.uniform(0.5, 1.0) if failed.pause_seconds is None else failed.pause_seconds
            time.sleep(min(wanted, PATIENCE.longest_pause_seconds))
            pause *= 2
    raise AssertionError("the last attempt returns or raises")


@cache
def _client(process: int) -> httpx.Client:
    """One a process: connections are kept between ranges."""
    silence = httpx.Timeout(PATIENCE.silence_seconds)
    return httpx.Client(timeout=silence, follow_redirects=True, headers={"User-Agent": AGENT})


def _http_facts(url: str) -> Facts:
    with _answer(url, {"Range": "bytes=0-0"}) as response:
        etag = response.headers.get("etag", "").removeprefix("W/").strip('"') or None
        md5, told = _md5(response.headers, etag), _told_range(response)
        if told is not None and told[3] != "*":
            return Facts(size=int(told[3]), etag=etag, md5=md5, ranges=True)
        if response.status_code == 416:
            return Facts(size=0, etag=etag, md5=None, ranges=False)
        size = response.headers.get("content-length", "")
        if response.status_code != 200 or not size.isdigit():
            raise _Passing(f"the server does not say how long the file is (status {response.status_code})")
        return Facts(size=int(size), etag=etag, md5=md5, ranges=False)


def _md5(headers: httpx.Headers, etag: str | None) -> str | None:
    """A store's ETag is the MD5 of a file that came in one piece, unless a key of the store encrypted it."""
    is_store = "x-amz-request-id" in headers or "x-amz-id-2" in headers or "x-amz-cf-id" in headers
    keyed = "kms" in headers.get("x-amz-server-side-encryption", "")
    return etag if etag and is_store and not keyed and _MD5.fullmatch(etag) else None


def _http_range(url: str, start: int, stop: int) -> bytes:
    pieces: list[bytes] = []
    if stop > start:
        _stream(url, {"Range": f"bytes={start}-{stop - 1}"}, pieces.append, limit=stop - start, first=start)
    return b"".join(pieces)


def _stream(
    url: str, headers: dict[str, str], write: Callable[[bytes], object], *, limit: int | None, first: int = 0
) -> None:
    """Give every byte of a body to `write`; raises _Passing unless it was as long as it should be."""
    deadline = time.monotonic() + PATIENCE.range_seconds
    with _answer(url, headers) as response:
        wanted = _check_range(response, first, limit) if headers else response.headers.get("content-length")
        came = 0
        try:
            for piece in response.iter_raw():
                came += len(piece)
                if limit is not None and came > limit:
                    raise _Passing(f"the server sent more than the {limit} bytes that it was asked for")
                if headers and time.monotonic() > deadline:
                    raise _Passing(f"only {came} bytes in {PATIENCE.range_seconds:g} s")
                write(piece)
        except httpx.HTTPError as error:
            raise _Passing(f"{type(error).__name__} after {came} bytes: {error}") from error
    if wanted is not None and came != int(wanted):
        raise _Passing(f"the body ended after {came} of {wanted} bytes")


def _check_range(response: httpx.Response, first: int, limit: int | None) -> int | None:
    told = _told_range(response)
    if told is None or int(told[1]) != first:
        raise _Passing(f"asked for a range from {first}, the server sent another (status {response.status_code})")
    return limit


def _told_range(response: httpx.Response) -> re.Match[str] | None:
    """First byte, last byte and size of the range that this response holds."""
    if response.status_code != 206:
        return None
    return _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))


class _Answer:
    """A response whose status is one to go on with, closed at the end."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url, self._headers = url, headers

    def __enter__(self) -> httpx.Response:
        request = _client(os.getpid()).build_request("GET", self._url, headers=self._headers)
        try:
            self._response = _client(os.getpid()).send(request, stream=True)
        except httpx.HTTPError as error:
            raise _Passing(f"{type(error).__name__}: {error}") from error
        try:
            _check_status(self._url, self._response)
        except BaseException:
            self._response.close()
            raise
        return self._response

    def __exit__(self, *_: object) -> None:
        self._response.close()


def _answer(url: str, headers: dict[str, str]) -> _Answer:
    return _Answer(url, headers | {"Accept-Encoding": "identity"})


def _check_status(url: str, response: httpx.Response) -> None:
    status = response.status_code
    if status in _AGAIN:
        pause = response.headers.get("retry-after", "")
        raise _Passing(f"status {status}", float(pause) if pause.isdigit() else None)
    if status >= 400 and status != 416:
        raise Refused(
            f"the server refuses this file with status {status}",
            at=url,
            hint="is the address right, and open to you?",
        )


def _other_facts(url: str) -> Facts:
    filesystem, inner = filesystem_of(url)
    try:
        info = filesystem.info(inner)
    except FileNotFoundError as error:
        raise Refused("there is no such file", at=url) from error
    except OSError as error:
        raise _Passing(str(error)) from error
    etag = next((str(info[name]).strip('"') for name in ("ETag", "etag", "md5Hash") if info.get(name)), None)
    return Facts(size=int(info.get("size") or 0), etag=etag, md5=None, ranges=True)


def _other_range(url: str, start: int, stop: int) -> bytes:
    filesystem, inner = filesystem_of(url)
    try:
        data = bytes(filesystem.cat_file(inner, start=start, end=stop))
    except FileNotFoundError as error:
        raise Refused("there is no such file", at=url) from error
    except OSError as error:
        raise _Passing(str(error)) from error
    if len(data) != stop - start:
        raise _Passing(f"{len(data)} of {stop - start} bytes came")
    return data


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))

"""Compressed files as the independent frames that they are made of, so that damage to one costs that one.

gzip members, bzip2 and xz streams, zstd and lz4 frames; a 7z archive is one frame, anything else a plain one. What a
file is, its first bytes say, not its name. After damage the search goes on at the next frame magic whose first bytes
decompress.

Invariant: a frame that is read to its end was whole: checksums are verified and truncation raises. Libraries that hide
frame borders lose that: fastwarc's GzipReader ends in silence in the middle of a cut member. Price: what `make
bench-warc` tells, some microseconds a record.

Output is asked for in bounded pieces, so a bomb of 1000:1 costs no space, and no more time than 256 MB do.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, Protocol, runtime_checkable

import zstandard

from sources.codecs import ERRORS, Decompressor, Deflate, Lz4, Skippable, Zstd, zstd_decompressor
from sources.seven_zip import MAGIC, BadArchive, read_archive
from sources.text import wide_encoding
from sources.watch import moved

CHUNK_BYTES = 1 << 16
_DICTIONARY_BYTES = 16 << 20
_BOMB_BYTES = 256 << 20
_BOMB_RATIO = 500
"""A frame of more than _BOMB_BYTES that expands more than so often is a bomb; text does not do so beyond 200 times."""
_PROBE_BYTES = 64
_SAMPLE_BYTES = 256
_HEAD_BYTES = 4096
_BINARY_SHARE = 0.05
"""Share of control bytes other than zero: compressed bytes have 0.1, text of any encoding none."""


class DamagedFrame(Exception):
    """A frame cannot be decompressed any further; `reason` is `truncated` or `damaged`."""

    def __init__(self, offset: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.offset = offset
        self.reason = reason
        self.detail = detail


class Plain:
    """An uncompressed file: one frame that ends with the file."""

    eof = False
    needs_input = True
    unused_data = b""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return data


@runtime_checkable
class Resumable(Protocol):
    """What bzip2 can besides: go on behind damage, and with what is whole at the end of a cut file."""

    @property
    def begun(self) -> int: ...
    def finish(self) -> bool: ...
    def resume(self) -> bool: ...


def _bzip2() -> Decompressor:
    """Loaded with the first such file: it brings numba."""
    from sources.dumps.bzip2 import Bzip2

    return Bzip2()


def _joined_bzip2() -> Decompressor:
    from sources.dumps.bzip2 import JoinedBzip2

    return JoinedBzip2()


Codecs = tuple[tuple[bytes, Callable[[], Decompressor]], ...]
_CODECS: Codecs = (
    (b"\x1f\x8b\x08", Deflate),
    (b"BZh", _bzip2),
    (b"\x28\xb5\x2f\xfd", Zstd),
    (b"\x04\x22\x4d\x18", Lz4),
    (b"\xfd7zXZ\x00", lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=1 << 30)),
)
_JOINED_CODECS: Codecs = tuple((magic, _joined_bzip2 if make is _bzip2 else make) for magic, make in _CODECS)
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)
_DICTIONARY = b"\x5d\x2a\x4d\x18"
_ANY_MAGIC = re.compile(b"|".join(re.escape(magic) for magic, _ in _CODECS))
_LONGEST_MAGIC = max(len(magic) for magic, _ in _CODECS)


class Input:
    """A raw file read forward, with a position and the bytes that a decompressor gave back."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._ahead = b""
        self.position = 0
        self.zstd = zstd_decompressor()

    def take(self, size: int = CHUNK_BYTES) -> bytes:
        data = self._ahead or self._raw.read(size)
        self._ahead = b""
        self.position += len(data)
        moved(len(data))
        return data

    def give_back(self, data: bytes) -> None:
        self._ahead = data + self._ahead
        self.position -= len(data)

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size:
            more = self._raw.read(CHUNK_BYTES)
            if not more:
                break
            self._ahead += more
        return self._ahead[:size]

    def seek(self, position: int) -> None:
        self._raw.seek(position)
        self._ahead = b""
        self.position = position


class Frame:
    """One frame, read forward. `offset` and, once it is read, `end` are bytes of the file."""

    def __init__(self, file: Input, make: Callable[[], Decompressor]) -> None:
        self._file = file
        self._codec = make()
        self.plain = isinstance(self._codec, Plain)
        self.offset = file.position
        self.end: int | None = None
        self.damage: DamagedFrame | None = None
        self._given = 0

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Between 1 and `size` bytes, fewer than asked for at will; b"" at the end. Raises DamagedFrame."""
        if self.damage:
            raise self.damage
        while self.end is None:
            data = self._file.take(size) if self._codec.needs_input else b""
            if not data and self._codec.needs_input:
                if isinstance(self._codec, Resumable) and self._codec.finish():
                    continue
                if not self.plain:
                    raise self._damaged("truncated", "the file ends in the middle of a compressed frame")
                self.end = self._file.position
                break
            if piece := self._decompress(data, size):
                return piece
        return b""

    def resume(self) -> bool:
        """Go on behind the damage that `read` raised; False where only the next frame can help."""
        if self.damage is None or self.damage.reason == "truncated" or not isinstance(self._codec, Resumable):
            return False
        self.damage = None
        return self._codec.resume()

    def seek(self, position: int) -> None:
        """Go to a byte of a plain file."""
        self._file.seek(position)
        self.end = None

    def _decompress(self, data: bytes, size: int) -> bytes:
        try:
            piece = self._codec.decompress(data, size)
        except ERRORS as error:
            raise self._damaged("damaged", f"cannot be decompressed: {error}") from error
        if self._codec.eof:
            self._file.give_back(self._codec.unused_data)
            self.end = self._file.position
        self._given += len(piece)
        if self._given > _BOMB_BYTES and self._given > _BOMB_RATIO * (self._file.position - self.offset):
            raise self._damaged("damaged", f"a bomb: {self._given} bytes come of {self._file.position - self.offset}")
        return piece

    @property
    def last_stream(self) -> int:
        """Where, in the file, the last of the frame's joined streams begins that was read."""
        return self.offset + (self._codec.begun if isinstance(self._codec, Resumable) else 0)

    def _damaged(self, reason: str, detail: str) -> DamagedFrame:
        self.damage = DamagedFrame(self.last_stream, reason, detail)
        return self.damage


def frames(raw: BinaryIO, codecs: Codecs = _CODECS) -> Iterator[Frame | DamagedFrame]:
    """Every frame of a file, in order. Read each to its end, or let DamagedFrame out of `read` be what ends it.

    Bytes between frames that are none come as a DamagedFrame of their own; zero padding is passed over.
    """
    file = Input(raw)
    if file.peek(len(MAGIC)) == MAGIC:
        yield _archive(file, raw)
        return
    file.zstd = _zstd_for(file)
    make = _codec_at(file, codecs)
    if make is None and not _is_compressed(file):
        yield Frame(file, Plain)
        return
    while True:
        if make is None:
            start = file.position
            yield DamagedFrame(start, "damaged", "bytes that are no compressed frame")
            make = _resynchronise(file, start, codecs)
        else:
            frame = Frame(file, make)
            yield frame
            whole = frame.end is not None or _drain(frame)
            make = _codec_at(file, codecs) if whole else _resynchronise(file, frame.last_stream + 1, codecs)
            if whole and make is None and _skip_padding(file):
                make = _codec_at(file, codecs)
                continue
        if make is None:
            return


def _archive(file: Input, raw: BinaryIO) -> Frame | DamagedFrame:
    try:
        codec = read_archive(raw)
    except BadArchive as error:
        return DamagedFrame(0, "damaged", f"the 7z archive cannot be read: {error}")
    file.seek(0)
    return Frame(file, lambda: codec)


def _is_compressed(file: Input) -> bool:
    """Whether a file without a magic is compressed, its first frame damaged: a plain one may begin with damage too."""
    head = file.peek(_HEAD_BYTES)
    if is_binary(head[:_SAMPLE_BYTES]) and is_binary(head):
        return True
    return any(byte < 9 for byte in head[:16]) and _frames_follow(file)


def _frames_follow(file: Input) -> bool:
    """Whether a frame further on ends at another one or with the file, as payloads inside a plain file do not."""
    found = _ANY_MAGIC.search(file.peek(CHUNK_BYTES))
    if found is None:
        return False
    file.seek(found.start())
    make = _codec_at(file, _CODECS)
    chained = (
        make is not None and _drain(Frame(file, make)) and (not file.peek(1) or _codec_at(file, _CODECS) is not None)
    )
    file.seek(0)
    return chained


def is_binary(head: bytes) -> bool:
    """Whether what begins so is compressed, and not plain text in some encoding."""
    if wide_encoding(head):
        return False
    controls = sum(0 < byte < 9 or 13 < byte < 32 for byte in head)
    return controls > _BINARY_SHARE * len(head)


def _codec_at(file: Input, codecs: Codecs) -> Callable[[], Decompressor] | None:
    start = file.peek(_LONGEST_MAGIC)
    for magic, make in codecs:
        if start.startswith(magic):
            return partial(Zstd, file.zstd) if make is Zstd else make
    return Skippable if _SKIPPABLE.match(start) else None


def dictionary_frame_bytes(head: bytes) -> int:
    """Length of the first frame of a file that begins so, if ranges of the file need it in front of them; else 0."""
    size = int.from_bytes(head[4:8], "little")
    return 8 + size if head.startswith(_DICTIONARY) and size <= _DICTIONARY_BYTES else 0


def _zstd_for(file: Input) -> zstandard.ZstdDecompressor:
    """With the dictionary of this file's frames, where its first frame is one, as in Archive Team's files.

    https://iipc.github.io/warc-specifications/specifications/warc-zstd/. A damaged one is none: the frames then fail.
    """
    size = dictionary_frame_bytes(file.peek(8))
    if not size:
        return zstd_decompressor()
    try:
        return zstd_decompressor(_unpack_dictionary(file.peek(size)[8:size]))
    except (ValueError, zstandard.ZstdError):
        return zstd_decompressor()


def _unpack_dictionary(packed: bytes) -> bytes:
    """A dictionary may itself be a zstd frame. Raises ValueError for one beyond the limit."""
    if not packed.startswith(b"\x28\xb5\x2f\xfd"):
        return packed
    codec, found = Zstd(), bytearray()
    piece = codec.decompress(packed, _DICTIONARY_BYTES)
    while piece and len(found) <= _DICTIONARY_BYTES:
        found += piece
        piece = b"" if codec.needs_input else codec.decompress(b"", _DICTIONARY_BYTES)
    if not codec.eof or len(found) > _DICTIONARY_BYTES:
        raise ValueError("no whole dictionary of the size that is allowed")
    return bytes(found)


def _drain(frame: Frame) -> bool:
    try:
        while frame.read():
            pass
    except DamagedFrame:
        return False
    return True


def _skip_padding(file: Input) -> bool:
    """Pass over zero bytes; whether anything follows."""
    while chunk := file.take():
        kept = chunk.lstrip(b"\x00")
        if kept:
            file.give_back(kept)
            return True
    return False


def _resynchronise(file: Input, start: int, codecs: Codecs) -> Callable[[], Decompressor] | None:
    """Move to the next frame at or after `start` whose first bytes decompress; None if there is none.

    A three-byte magic occurs by chance every 16 MB, hence the probe.
    """
    file.seek(start)
    while (found := _find_magic(file)) is not None:
        file.seek(found)
        make = _codec_at(file, codecs)
        if make and _begins_well(Frame(file, make)):
            file.seek(found)
            return make
        file.seek(found + 1)
    return None


def _begins_well(frame: Frame) -> bool:
    try:
        return bool(frame.read(_PROBE_BYTES))
    except DamagedFrame:
        frame.damage = None  # it holds the frame and its buffers by its traceback: thousands of them, 1.8 GB, in a ring
        return False


def _find_magic(file: Input) -> int | None:
    tail = b""
    while chunk := file.take():
        window = tail + chunk
        if match := _ANY_MAGIC.search(window):
            return file.position - len(window) + match.start()
        tail = window[1 - _LONGEST_MAGIC :]
    return None


class Gap:
    """A stretch of a decompressed stream that was lost; `offset` is that of the damaged frame in the file."""

    def __init__(self, damage: DamagedFrame) -> None:
        self.offset = damage.offset
        self.reason = damage.reason
        self.detail = damage.detail


def stream(raw: BinaryIO) -> Iterator[bytes | Gap]:
    """The decompressed bytes of all frames as one stream of pieces, with a Gap where a frame was damaged."""
    for frame in frames(raw, _JOINED_CODECS):
        if isinstance(frame, DamagedFrame):
            yield Gap(frame)
            continue
        whole = False
        while not whole:
            try:
                while piece := frame.read():
                    yield piece
                whole = True
            except DamagedFrame as damage:
                yield Gap(damage)
                if not frame.resume():
                    break

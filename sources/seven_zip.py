"""7z archives: where their packed streams lie, from the list at the archive's end, and what they unpack to, in order.

https://py7zr.readthedocs.io/en/latest/archive_format.html. A dump's archive holds one file; of several the contents
come one after the other. Invariant: read forward, in bounded pieces, behind the list; the checksum of a stream that is
one file is compared.

LZMA, LZMA2, bzip2, Deflate and stored bytes, one method a stream: what 7-Zip makes of text, by the standard library
alone. PPMd, filters for programs and encryption are refused; for those py7zr brings six compiled packages.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import BinaryIO

from sources.codecs import ERRORS, Decompressor, Deflate

MAGIC = b"7z\xbc\xaf\x27\x1c"
_HEAD = struct.Struct("<6s2sIQQI")
"""Magic, version, checksum of what follows here; offset, size and checksum of the list."""
_MOST_LIST_BYTES = 16 << 20
_MOST_DICTIONARY_BYTES = 1 << 30
_END, _HEADER, _PROPERTIES, _, _STREAMS, _FILES = range(6)
_PACKED, _FOLDERS, _CONTENTS, _SIZES, _CHECKSUMS, _FOLDER, _UNPACKED_SIZES, _COUNTS = range(6, 14)
_PACKED_LIST = 23
_COMPLEX, _HAS_SETTINGS = 0x10, 0x20


class BadArchive(Exception):
    """The archive's list cannot be read, or names what is not read here."""


class _Stored:
    """Bytes as they are."""

    eof, needs_input, unused_data = False, True, b""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return data[:max_length]


def _lzma(settings: bytes, size: int) -> Decompressor:
    packed, dictionary = struct.unpack("<BI", settings)
    rest, lc = divmod(packed, 9)
    pb, lp = divmod(rest, 5)
    return _raw_lzma({"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb}, dictionary, size)


def _lzma2(settings: bytes, size: int) -> Decompressor:
    [power] = settings
    return _raw_lzma({"id": lzma.FILTER_LZMA2}, (2 | power & 1) << (power // 2 + 11), size)


def _raw_lzma(settings: dict[str, int], dictionary: int, size: int) -> Decompressor:
    """With no larger a dictionary than what is unpacked has use for, and as large a one as LZMA asks for."""
    needed = max(min(dictionary, size), 4096)
    if needed > _MOST_DICTIONARY_BYTES:
        raise BadArchive(f"it wants a dictionary of {needed} bytes, the limit is {_MOST_DICTIONARY_BYTES}")
    return lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=[settings | {"dict_size": needed}])


_METHODS: dict[bytes, Callable[[bytes, int], Decompressor]] = {
    b"\x03\x01\x01": _lzma,
    b"\x21": _lzma2,
    b"\x04\x02\x02": lambda *_: bz2.BZ2Decompressor(),
    b"\x04\x01\x08": lambda *_: Deflate(-15),
    b"\x00": lambda *_: _Stored(),
}
_REFUSED = {b"\x06\xf1\x07\x01": "encryption", b"\x03\x04\x01": "PPMd", b"\x04\x01\x09": "Deflate64"}


@dataclass(frozen=True, slots=True)
class _Stream:
    """A packed stream: its bytes of the file, how it is packed, what it unpacks to (CRC-32, or None)."""

    start: int
    size: int
    codec: Decompressor
    unpacked: int
    checksum: int | None


class SevenZip:
    """The archive as one stream, with the interface of the other decompressors; it ends with its last packed stream."""

    unused_data = b""

    def __init__(self, streams: list[_Stream]) -> None:
        self._streams = [stream for stream in streams if stream.unpacked]
        self._ahead = b""
        self._at = self._given = self._crc = 0

    @property
    def eof(self) -> bool:
        return not self._streams

    @property
    def needs_input(self) -> bool:
        return not self._ahead and (self.eof or self._streams[0].codec.needs_input)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        self._ahead += data
        piece = b""
        while not piece and not self.eof and not self.needs_input:
            piece = self._unpack(self._streams[0], max_length)
        return piece

    def _unpack(self, stream: _Stream, max_length: int) -> bytes:
        """What comes of the bytes ahead that are the stream's; those before it are passed over."""
        self._take(stream.start)
        packed = self._take(stream.start + stream.size) if stream.codec.needs_input else b""
        if stream.codec.needs_input and not packed:
            if self._ahead:
                raise lzma.LZMAError("a packed stream ends before what it holds does")
            return b""
        piece = stream.codec.decompress(packed, min(max_length, stream.unpacked - self._given))
        self._given, self._crc = self._given + len(piece), zlib.crc32(piece, self._crc)
        if self._given == stream.unpacked:
            self._close(stream)
        return piece

    def _close(self, stream: _Stream) -> None:
        if stream.checksum not in (None, self._crc):
            raise lzma.LZMAError("the checksum of what is unpacked does not fit")
        del self._streams[0]
        self._given = self._crc = 0

    def _take(self, stop: int) -> bytes:
        """What is ahead, up to a byte of the file."""
        size = max(stop - self._at, 0)
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        self._at += len(taken)
        return taken


def read_archive(raw: BinaryIO) -> SevenZip:
    """What unpacks the 7z archive that a file is. Raises BadArchive."""
    _, _, head_checksum, offset, size, checksum = _HEAD.unpack(_read(raw, 0, _HEAD.size))
    if zlib.crc32(struct.pack("<QQI", offset, size, checksum)) != head_checksum:
        raise BadArchive("its head is damaged")
    end = _HEAD.size + offset
    found = _read(raw, end, size)
    if zlib.crc32(found) != checksum:
        raise BadArchive("the list of what is in it is damaged")
    try:
        while found[:1] == bytes([_PACKED_LIST]):
            found = _unpack_list(raw, _Fields(found[1:]).streams(end))
        return SevenZip(_Fields(found).main_streams(end))
    except (IndexError, struct.error, *ERRORS) as error:
        raise BadArchive(f"the list of what is in it cannot be read: {error}") from error


def _read(raw: BinaryIO, start: int, size: int) -> bytes:
    if size > _MOST_LIST_BYTES:
        raise BadArchive(f"its list has {size} bytes, the limit is {_MOST_LIST_BYTES}")
    raw.seek(start)
    data = bytearray()
    while len(data) < size and (more := raw.read(size - len(data))):
        data += more
    if len(data) < size:
        raise BadArchive("it is cut off: the list of what is in it stands at its end")
    return bytes(data)


def _unpack_list(raw: BinaryIO, streams: list[_Stream]) -> bytes:
    """A list that is packed itself."""
    [stream] = streams
    if stream.unpacked > _MOST_LIST_BYTES:
        raise BadArchive(f"its list has {stream.unpacked} bytes, the limit is {_MOST_LIST_BYTES}")
    unpacker, packed = SevenZip([replace(stream, start=0)]), _read(raw, stream.start, stream.size)
    return unpacker.decompress(packed, stream.unpacked)


class _Fields:
    """The list's fields, read forward. Raises IndexError, struct.error or BadArchive where it is none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def main_streams(self, end: int) -> list[_Stream]:
        """The packed streams of a whole list; what it says of names and times is left out."""
        if not self._data:
            return []
        self._expect(_HEADER)
        kind = self._byte()
        if kind == _PROPERTIES:
            while self._byte():
                self._take(self._number())
            kind = self._byte()
        if kind not in (_STREAMS, _FILES, _END):
            raise BadArchive(f"its list has a field of kind {kind}")
        return self.streams(end) if kind == _STREAMS else []

    def streams(self, end: int) -> list[_Stream]:
        """The packed streams, which lie one behind the other before the byte `end`."""
        start = 0
        sizes, codecs, unpacked, checksums = list[int](), list[Decompressor](), list[int](), list[int | None]()
        while kind := self._byte():
            if kind == _PACKED:
                start, sizes = _HEAD.size + self._number(), self._packed_sizes()
            elif kind == _FOLDERS:
                codecs, unpacked, checksums = self._folders()
            elif kind == _CONTENTS:
                checksums = self._file_checksums(checksums)
            else:
                raise BadArchive(f"its list has a field of kind {kind}")
        starts = accumulate(sizes, initial=start)
        if start + sum(sizes) > end:
            raise BadArchive("its packed streams cannot lie where it says")
        return [_Stream(*each) for each in zip(list(starts)[:-1], sizes, codecs, unpacked, checksums, strict=True)]

    def _packed_sizes(self) -> list[int]:
        count, sizes = self._count(), list[int]()
        while kind := self._byte():
            if kind == _SIZES:
                sizes = [self._number() for _ in range(count)]
            elif kind == _CHECKSUMS:
                self._checksums(count)
        return sizes

    def _folders(self) -> tuple[list[Decompressor], list[int], list[int | None]]:
        """What unpacks each stream, to how many bytes, with which checksum."""
        self._expect(_FOLDER)
        count = self._count()
        self._expect(0)
        methods = [self._method() for _ in range(count)]
        self._expect(_UNPACKED_SIZES)
        sizes = [self._number() for _ in methods]
        codecs = [make(settings, size) for (make, settings), size in zip(methods, sizes, strict=True)]
        checksums: list[int | None] = [None] * count
        while kind := self._byte():
            if kind == _CHECKSUMS:
                checksums = self._checksums(count)
        return codecs, sizes, checksums

    def _method(self) -> tuple[Callable[[bytes, int], Decompressor], bytes]:
        """The one method of a stream, and its settings."""
        methods, flags = self._byte(), self._byte()
        name = self._take(flags & 15)
        if methods != 1 or flags & _COMPLEX or name not in _METHODS:
            what = _REFUSED.get(name, "filters" if methods != 1 else f"the method {name.hex()}")
            raise BadArchive(f"it is made with {what}, which is not read here: unpack it with 7-Zip")
        return _METHODS[name], self._take(self._number()) if flags & _HAS_SETTINGS else b""

    def _file_checksums(self, known: list[int | None]) -> list[int | None]:
        """The checksums of the streams, those of streams of one file completed by the file's."""
        counts, kind = [1] * len(known), self._byte()
        if kind == _COUNTS:
            counts, kind = [self._number() for _ in known], self._byte()
        if kind == _SIZES:
            self._skip_numbers(sum(count - 1 for count in counts if count))
            kind = self._byte()
        of_files = [
            0 if count == 1 and whole is not None else count for count, whole in zip(counts, known, strict=True)
        ]
        found = self._checksums(sum(of_files)) if kind == _CHECKSUMS else [None] * sum(of_files)
        if kind:
            self._expect(0)
        places = accumulate(of_files, initial=0)
        return [
            found[place] if count == 1 else whole for whole, count, place in zip(known, of_files, places, strict=False)
        ]

    def _skip_numbers(self, count: int) -> None:
        for _ in range(count):
            self._number()

    def _checksums(self, count: int) -> list[int | None]:
        if count > len(self._data):
            raise BadArchive(f"its list names {count} checksums")
        given = [True] * count if self._byte() else self._bits(count)
        return [int.from_bytes(self._take(4), "little") if one else None for one in given]

    def _bits(self, count: int) -> list[bool]:
        data = self._take(-(-count // 8))
        return [bool(data[at // 8] >> (7 - at % 8) & 1) for at in range(count)]

    def _count(self) -> int:
        """A number of things that take at least a byte each."""
        count = self._number()
        if count > len(self._data):
            raise BadArchive(f"its list of {len(self._data)} bytes names {count} streams")
        return count

    def _number(self) -> int:
        """One to nine bytes: as many more as the first has leading ones, the lowest first, its other bits on top."""
        first = self._byte()
        more = next((bit for bit in range(8) if not first & 0x80 >> bit), 8)
        low = int.from_bytes(self._take(more), "little")
        return low | (first & (0x7F >> more)) << 8 * more

    def _expect(self, wanted: int) -> None:
        if (found := self._byte()) != wanted:
            raise BadArchive(f"its list has a field of kind {found} instead of {wanted}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise IndexError("it ends early")
        self._at += size
        return taken

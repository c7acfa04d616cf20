"""What the standard library does not pack: LZ4 as web archives have it, a frame a record, and 7z archives."""

from __future__ import annotations

import io
import lzma
import struct
import zlib

from fastwarc.stream_io import Lz4Writer


def pack_lz4(data: bytes) -> bytes:
    """One frame that holds `data`."""
    out = io.BytesIO()
    writer = Lz4Writer(out)
    writer.write(data)
    writer.finish()
    writer.flush()
    return out.getvalue()


def pack_7z(content: bytes) -> bytes:
    """An archive of one file without a name, in LZMA; a number takes nine bytes in it."""
    stream = lzma.compress(
        content, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "preset": 0, "dict_size": 1 << 20}]
    )
    return store_7z(stream, content, b"\x23\x03\x01\x01\x05" + struct.pack("<BI", 93, 1 << 20))


def store_7z(stream: bytes, content: bytes, method: bytes = b"\x01\x00") -> bytes:
    """An archive of one packed stream and what it unpacks to; as it is by default."""
    size, unpacked = (b"\xff" + struct.pack("<Q", len(data)) for data in (stream, content))
    packs = b"\x06\x00\x01\x09" + size + b"\x00"
    folders = b"\x07\x0b\x01\x00\x01" + method + b"\x0c" + unpacked
    checksum = b"\x0a\x01" + struct.pack("<I", zlib.crc32(content)) + b"\x00"
    listed = b"\x01\x04" + packs + folders + checksum + b"\x00\x00"
    place = struct.pack("<QQI", len(stream), len(listed), zlib.crc32(listed))
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<I", zlib.crc32(place)) + place + stream + listed

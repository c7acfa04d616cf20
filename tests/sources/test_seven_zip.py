"""7z archives of py7zr 1.1.4, read whole, refused with a word, damaged at every byte; and larger ones of our own."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import fsspec
import pytest

from benchmarks.packing import pack_7z, store_7z
from sources.compression import DamagedFrame, frames
from sources.ingest import read
from sources.inputs import expand_inputs
from sources.reading import ReadConfig
from sources.seven_zip import MAGIC
from tests.sources.captures import dump, failures, page, reasons, texts, write
from tests.sources.test_hostile import within

DUMP = dump([page(number, f"Mill {number} grinds.") for number in range(1, 4)])
LINE = b'{"text": "A mill."}\n'
READ = {
    "LZMA": (
        "N3q8ryccAARqkon0RAEAAAAAAAAVAAAAAAAAAMvMTx8AHhtIplsKWl3fV9ioFy9LhD5NCa274p8TOHQJhaAbcZY6J6g42omoi7edUjskps03"
        "PSLnFW5lU6JPhsFz/b2hPF373GFmG4y+QqCYSSxweTqrsM7OcuwOAgFBgszPPiRwJaX1PwsWENA4ddZ62ThEJFRcRj40uYPd3I85wQoMD6jc"
        "ATcyF/mtlS0fVZNkKtDa8L0PGw6DuKgyvdA7Jn5rB85gd0wivCXPApYAs60i9aF+O4hN8yHsfgVEMgBwY35YUN99ibr5VkCSmfg8palvvUni"
        "BUyZVowhKEajo002d6GcQ4QLMJcnYbf/8uFF6QEAUAEEBgABCYDvAAcLAQABIwMBAQVdAACAAAyCvQAICgGD2K4bAAAFARkDAAAAEQ0AZAAu"
        "AHgAbQBsAAAAFAoBALCWFVMxet0BFQYBACCAgIEAAAAXBoDvAQlVAAcLAQABISEBGAxRAAA="
    ),
    "LZMA2": (
        "N3q8ryccAASLq8lAPgEAAAAAAAAVAAAAAAAAAFojH7HgArwA6V0AHhtIplsKWl3fV9ioFy9LhD5NCa274p8TOHQJhaAbcZY6J6g42omoi7ed"
        "Ujskps03PSLnFW5lU6JPhsFz/b2hPF373GFmG4y+QqCYSSxweTqrsM7OcuwOAgFBgszPPiRwJaX1PwsWENA4ddZ62ThEJFRcRj40uYPd3I85"
        "wQoMD6jcATcyF/mtlS0fVZNkKtDa8L0PGw6DuKgyvdA7Jn5rB85gd0wivCXPApYAs60i9aF+O4hN8yHsfgVEMgBwY35YUN99ibr5VkCSmfg8"
        "palvvUniBUyZVowhKEajo002d6GcQ4QLMHqgHgAAAQBIAQQGAAEJgPEABwsBAAEhIQEWDIK9AAgKAYPYrhsAAAUBGQEAEQ0AZAAuAHgAbQBs"
        "AAAAFAoBAJA3LFMxet0BFQYBACCAgIEAAAAXBoDxAQlNAAcLAQABISEBGAxJAAA="
    ),
    "bzip2": (
        "N3q8ryccAARVuybReAEAAAAAAAAVAAAAAAAAAHSsPU5CWmg5MUFZJlNZbUSXNQAAV9+AABBQA/4XAAJEEL/v3cAwASmAV+pQAAGgAAAI9TVT"
        "xTygeoPSaBoAAIqIyk80TI1NppBtJoPRJRWl6IiRQxdjRQSDZ2XcL2rWgoNYxYgheOqIYadZaomTIQyQ6Q6TFYF5Y2UpHGXXCMoXnEnOcQm7"
        "DjjFGa3lNoOreh2bcVIyxSd3eRBm7sWLU+7AKnpQdcH5braOoQHXEexIp11agchxaOrsw7sHP1YsGOH8YHMcJOzIYDJChHATs6bNrkNB8Lm0"
        "Gy1yN425DEizHkvF4O4axrbr4j5ampuGeYzGtk+Cwax7xG9kzZdW7myZNujc8meg4FbQbLP1rHghvGZJgzYsBgxG/zm+gztOPR9mSH+LuSKc"
        "KEg2okuagAEASAEEBgABCYErAAcLAQABAwQCAgyCvQAICgGD2K4bAAAFARkBABENAGQALgB4AG0AbAAAABQKAQAgYT1TMXrdARUGAQAggICB"
        "AAAAFwaBKwEJTQAHCwEAASEhARgMSQAA"
    ),
    "Deflate": (
        "N3q8ryccAAQrZijeMQEAAAAAAAAVAAAAAAAAAKUeRnu9krFOxDAMhvd7iur2q9MElsr4DU5iYGJBgZpi0aRREh33+CRXwS0ZEMMtlv7fvy1/"
        "ktHxJPZLPoUwSWbx7yvhq01MHzmHNAKw72s/1GC/xhmqgqMV//JoZ0a4pBF+x3cYik+YJS9MNdMNCJtCn0ghlIoyUbFLxcgnSbL6zVObmcVx"
        "ytYF0kqrgxoOSj8pM6q7Ud0/130/fXTrxAvVszKfM8KmsYru7JYxBfvGD/sQOXE88Z6Osizd0M1R/JT6sqskC8H1DrgQNEB0G0Q3QPStQPR/"
        "QEwbxDRAzK1AzB9A4Pqwu28BAEgBBAYAAQmA5AAHCwEAAQMEAQgMgr0ACAoBg9iuGwAABQEZAQARDQBkAC4AeABtAGwAAAAUCgEAoNNMUzF6"
        "3QEVBgEAIICAgQAAABcGgOQBCU0ABwsBAAEhIQEYDEkAAA=="
    ),
    "three files, one empty, the list not packed": (
        "N3q8ryccAARzyJCa7wAAAAAAAACKAAAAAAAAAKTMGU8AHhtIplsKWl3fV9ioFy9LhD5NCa274p8TOHQJhaAbcZY6J6g42omoi7edUjskps03"
        "PSLnFW5lU6JPhsFz/b2hPF373GFmG4y+QqCYSSxweTqrsM7OcuwOAgFBgszPPiRwJaX1PwsWENA4ddZ62ThEJFRcRj40uYPd3I85wQoMD6jc"
        "ATcyF/mtlS0fVZNkKtDa8L0PGw6DuKgyvdA7Jn5rB85gd0wivCXPApYAs60i9aF+O4hN8yHsfgVEMgBwY35YUN99ibr5VkCSmfg8palvvUni"
        "BUyZVowhKEajo002d6GcQ4QLMJcnYbf/8uFF6QEEBgABCYDvAAcLAQABIwMBAQVdAACAAAyCvQAIDQMJgMgACgFvu960AAAAAA43X9IAAAUD"
        "ESUAYQAuAHgAbQBsAAAAZQBtAHAAdAB5AAAAYgAuAHgAbQBsAAAAFBoBABCxWVQxet0BIL1ZVDF63QHgwVlUMXrdARUOAQAggICBIICAgSCA"
        "gIEAAA=="
    ),
}
REFUSED = {
    "PPMd": (
        "N3q8ryccAAQUiBEoKwEAAAAAAAAVAAAAAAAAAA4wqZQAPDMGq9m2vnwy+8891z44I/l3cw71ZxVAyMiA8hELosnSmvc4i1r648Q4yrNaFhV+"
        "qt2ekim/fuX/R40BmdHrALT42b/8INQvgbuC38v81sNV42EI9DKRnzJjXSRb76VagZeSn/QqCSMEOT4tMkAIF5ymMCmOrsP4bRmmn2WvLSfx"
        "x374cccijL1ujRE7Pzlrb4fH/NbrTAYXrnuFcOeY6YWMOQ97ptbFE/IL4SWZBk7MkDICdM9TidWOX19sSuiRxOdFyCp1Aguyoem5kMTyzl9F"
        "VSM2AQBQAQQGAAEJgNYABwsBAAEjAwQBBwYAABAAAAAMgr0ACAoBg9iuGwAABQEZAQARDQBkAC4AeABtAGwAAAAUCgEA4BlpUzF63QEVBgEA"
        "IICAgQAAABcGgNYBCVUABwsBAAEhIQEYDFEAAA=="
    ),
    "encryption": (
        "N3q8ryccAATUD8PPcQEAAAAAAAAVAAAAAAAAACOBuli3OxFIwfSv0AbIoSSgUuDuJ+1IbgidpmhKfl9bEWB8QwO3Ts0+TCU7umGAIYGW0chj"
        "OMuFDpbP7SxBKBUO6W44Fcxk9+qaMU8V3P1c/Pv5NGQJaTfW26du7ngnzENOUlyOxCZpmVa8upmv/4n8n/iNm3UCXsmqxBfCMcH6hy+D/v+5"
        "XiOdfyL+MpZPaaUuMmpDboTcLoXbD7K2lxRPqoTd6QdRni3ivKcqgqpItIMGReJjgi6ywN3Mtz10WmT1PV+yfushkAOxs7urA8bCfcwGL/3u"
        "WNnbCWqim6YfQnzg8vIM83PoCnj2pv9NFbwpT/brSAQhz6/1p1ZBXMjN/aglAQBsAQQGAAEJgQAKAW+frTgABwsBAAIkBvEHARJTDw0OaTpJ"
        "0B+rNlffBT7LxcghIQEYAQAMgPGCvQAICgGD2K4bAAAFARkDAAAAEQ0AZAAuAHgAbQBsAAAAFAoBAEC8PFQxet0BFQYBACCAgIEAAAAXBoEA"
        "AQlxAAcLAQABISEBGAxtAAA="
    ),
    "filters": (
        "N3q8ryccAASW+gWPTwEAAAAAAAAVAAAAAAAAABRTQSbgArwA7F0AHhtIplsKWl3fV9ioFy9LhD5NCa274p8TOGlDS3BbexigF9L3Xi+jB4W9"
        "M3YXvH5pELB+D+nq/NRgWzoLo24l/5S7rZfMZRT+SDE4bULsOwLjGBcl4KEgvDi29BEDNpPFbH7A+F1V8u0t3EGXGc7RTa/f01PdfEW8QR2J"
        "RUCuud20aHOz81GtZP2qrse5neu7spKUSjQY0H2gEFOTFtphowDgWyUEQhk9PrE3ZYuk+ASv+odETcw6EZ5SfrCKiWq66nKU811M1YUIEx1D"
        "yfwvlxz8U0We1I0DEk4SG46VkB73NqEQaP5nWAOkgAAA4ABUAFNdAACBMweuD9UyOX9XJUUoKT4CLDVWIDuAmlPZx7p6kE9vtSgaXpoqZTR1"
        "mtSN2rIARxysg7x6NUF8paUIubSZatiIVjzKht047ScJCiZY7rpMQAAAABcGgPQBCVsABwsBAAEhIQEYDFUAAA=="
    ),
}


def unpack(archive: bytes, piece: int = 1 << 16) -> bytes:
    """Raises DamagedFrame."""
    [frame] = frames(io.BytesIO(archive))
    if isinstance(frame, DamagedFrame):
        raise frame
    return b"".join(iter(lambda: frame.read(piece), b""))


@pytest.mark.parametrize("archive", READ.values(), ids=READ)
def test_what_was_packed_is_unpack_7z(tmp_path: Path, archive: str) -> None:
    data = base64.b64decode(archive)
    assert unpack(data) == unpack(data, 7) == DUMP
    (tmp_path / "d.xml.7z").write_bytes(data)
    [raw] = expand_inputs("s", [str(tmp_path / "d.xml.7z")])
    assert texts(list(read(raw, ReadConfig()))) == [f"Mill {n} grinds." for n in (1, 2, 3)]


def test_any_kind_of_file_and_any_place() -> None:
    fsspec.filesystem("memory").pipe("/archives/a.jsonl.7z", store_7z(LINE, LINE))
    [raw] = expand_inputs("s", ["memory://archives/a.jsonl.7z"])
    assert raw.kind == "jsonl" and texts(list(read(raw, ReadConfig()))) == ["A mill."]


@pytest.mark.parametrize("method", REFUSED)
def test_what_is_not_read_is_named(tmp_path: Path, method: str) -> None:
    [failure] = failures(list(read(write(tmp_path, "x", base64.b64decode(REFUSED[method]), "mediawiki"), ReadConfig())))
    assert failure.reason == "damaged_compression" and f"made with {method}, which is not read" in failure.detail


@pytest.mark.parametrize("method", ["LZMA", "bzip2"])
def test_no_damage_goes_unseen(method: str) -> None:
    """Every byte but those of names and times, which nobody reads, is under a checksum."""
    archive = base64.b64decode(READ[method])
    for at in range(len(MAGIC), len(archive)):
        broken = bytearray(archive)
        broken[at] ^= 0x55
        try:
            assert unpack(bytes(broken)) == DUMP
        except DamagedFrame:
            continue
    for size in range(8, len(archive)):
        with pytest.raises(DamagedFrame):
            unpack(archive[:size])


def test_damage_costs_what_follows_it(tmp_path: Path) -> None:
    pages = [page(number, f"Mill {number} grinds {number * 7919}.") for number in range(3000)]
    data = bytearray(pack_7z(dump(pages)))
    data[len(data) // 2] ^= 0x55
    found = list(read(write(tmp_path, "x", bytes(data), "mediawiki"), ReadConfig()))
    assert 1000 < len(texts(found)) < 3000 and "damaged_compression" in reasons(found)


def test_memory_does_not_grow_with_the_archive() -> None:
    data = pack_7z(b"<page>The mill grinds on.</page>" * 5_000_000)
    with within(seconds=10, megabytes=20):
        [frame] = frames(io.BytesIO(data))
        assert not isinstance(frame, DamagedFrame)
        assert sum(map(len, iter(frame.read, b""))) == 160_000_000

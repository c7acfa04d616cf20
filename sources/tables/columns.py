"""The columns that a table has, as far as its beginning tells: what a mapping is checked against before a run starts.

Nothing remote is opened, and of JSON lines the first thousand are looked at: 20 ms a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from sources.compression import Gap, stream
from sources.files import open_raw
from sources.reading import RawInput
from sources.remote.places import is_remote
from sources.tables.dataset_names import DEFAULT_SPLIT

_ROWS = 1000
_BYTES = 8 << 20
_LEVELS = 4


def columns_of(raw: RawInput) -> list[str]:
    """Names of the columns, nested ones as `meta.url`; none where they cannot be told before the input is read."""
    if is_remote(raw.path):
        return []
    try:
        if raw.kind == "parquet":
            with open_raw(raw) as file:
                return list(_of_schema(pq.read_schema(file)))
        if raw.kind == "huggingface":
            return _of_saved(Path(raw.path), raw.split or DEFAULT_SPLIT)
        return _of_lines(raw) if raw.kind == "jsonl" else []
    except (pa.ArrowException, OSError, ValueError):
        return []


def _of_schema(fields: Any, level: int = 1) -> Iterator[str]:
    for field in fields:
        yield field.name
        if pa.types.is_struct(field.type) and level < _LEVELS:
            yield from (f"{field.name}.{inner}" for inner in _of_schema(field.type, level + 1))


def _of_saved(folder: Path, split: str) -> list[str]:
    """What `save_to_disk` wrote of the columns, beside the data or in the folder of the split."""
    infos = [place / "dataset_info.json" for place in (folder, folder / split)]
    features = [orjson.loads(info.read_bytes()).get("features") or {} for info in infos if info.is_file()]
    return [name for found in features for name in _of_features(found)]


def _of_features(features: Mapping[str, Any]) -> Iterator[str]:
    for name, feature in features.items():
        yield name
        if isinstance(feature, Mapping) and "_type" not in feature:
            yield from (f"{name}.{inner}" for inner in _of_features(feature))


def _of_lines(raw: RawInput) -> list[str]:
    found: dict[str, None] = {}
    for line in islice(_beginning(raw).splitlines(), _ROWS):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(row, Mapping):
            found |= dict.fromkeys(_of_row(row))
    return list(found)


def _beginning(raw: RawInput) -> bytes:
    held = bytearray()
    with open_raw(raw) as file:
        for piece in stream(file):
            if isinstance(piece, Gap) or len(held) > _BYTES:
                break
            held += piece
    return bytes(held)


def _of_row(row: Mapping[str, Any], level: int = 1) -> Iterator[str]:
    for name, value in row.items():
        yield name
        if isinstance(value, Mapping) and level < _LEVELS:
            yield from (f"{name}.{inner}" for inner in _of_row(value, level + 1))

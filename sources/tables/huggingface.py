"""Hugging Face datasets to documents, streamed: what `save_to_disk` left, a folder of data files, or a name on the hub.

Nothing that a dataset brings is executed: `datasets` 5 has no loading scripts, and a repository that needs one is
refused. Telemetry is off. A document's `page` is its row number in the split.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from sources.reading import Place, RawInput, ReadConfig, Reading
from sources.tables.dataset_names import DEFAULT_SPLIT
from sources.tables.rows import RowReader
from sources.watch import begins
from storage.errors import InputError

PACKAGES = ("datasets", "pyarrow")
SAVED_MARKS = ("dataset_info.json", "dataset_dict.json", "state.json")
_SHOWN = 20


def read_huggingface(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the rows of one split. Raises InputError if that, or its text column, cannot be found."""
    rows = iter(_open(raw))
    reader = RowReader(raw, config)
    for number in count():
        place = Place(raw.source, raw.name, page=str(number))
        try:
            row = next(rows)
        except StopIteration:
            return
        except (
            Exception
        ) as error:  # a damaged shard, a network that stays away: `datasets` has no common root for these
            yield place.failure("unreadable_row", f"row {number} and those after it: {type(error).__name__}: {error}")
            return
        if number == 0 and not reader.has_text(list(row)):
            raise InputError(
                f"source `{raw.source}` has no column `{raw.column_of('text')}`; it has "
                + ", ".join(f"`{name}`" for name in list(row)[:20]),
                at=raw.path,
                hint="say which column is the text: `--column text=NAME`",
            )
        yield begins(place) or reader.read(row, place, number)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` made this folder."""
    return any((folder / mark).is_file() for mark in SAVED_MARKS)


def _open(raw: RawInput) -> Iterable[Mapping[str, Any]]:
    """The rows that `raw` names: exactly its commit, where it is of the hub."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    import datasets

    path = Path(raw.path)
    try:
        if path.is_dir() and is_saved_dataset(path):
            return _open_saved(datasets, raw)
        return _open_streamed(datasets, raw)
    except (OSError, ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise InputError(
            f"cannot open the dataset of source `{raw.source}`: {str(error)[:300]}",
            at=raw.path,
            hint="is the name right, and the hub in reach?",
        ) from error


def _open_saved(datasets: Any, raw: RawInput) -> Iterable[Mapping[str, Any]]:
    if raw.subset:
        raise _absent(raw, "subset", raw.subset, [])
    saved = datasets.load_from_disk(raw.path)
    if isinstance(saved, datasets.DatasetDict):
        return _choose_split(raw, saved)
    if raw.split and raw.split != str(saved.split):
        raise _absent(raw, "split", raw.split, [str(saved.split)] if saved.split else [])
    rows: Iterable[Mapping[str, Any]] = saved
    return rows


def _open_streamed(datasets: Any, raw: RawInput) -> Iterable[Mapping[str, Any]]:
    try:
        builder = datasets.load_dataset_builder(raw.path, raw.subset, revision=raw.revision)
    except ValueError as error:
        subsets = datasets.get_dataset_config_names(raw.path, revision=raw.revision)
        if raw.subset in subsets or (raw.subset is None and len(subsets) < 2):
            raise
        raise _absent(raw, "subset", raw.subset, subsets) from error
    return _choose_split(raw, builder.as_streaming_dataset())


def _choose_split(raw: RawInput, splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> Iterable[Mapping[str, Any]]:
    split = raw.split or DEFAULT_SPLIT
    if split not in splits:
        raise _absent(raw, "split", split, list(splits))
    return splits[split]


def _absent(raw: RawInput, option: str, wanted: str | None, present: Sequence[str]) -> InputError:
    """What to say of a subset or split that is not there."""
    asked = f"has no {option} `{wanted}`" if wanted else f"has several {option}s, and none is named"
    there = ", ".join(f"`{name}`" for name in present[:_SHOWN])
    return InputError(
        f"the dataset of source `{raw.source}` {asked}; " + (f"it has {there}" if there else f"it has no {option}s"),
        at=raw.path,
        hint=f"name one of them: `--dataset '{raw.source}=…?{option}={present[0]}'`"
        if there
        else f"leave `{option}` out",
    )

"""Documents that Gristmill wrote, read back: one a row, with the id, licence and places that they have.

Invariant: a document keeps its doc_id, so that what its dataset says of it (a synthetic document's parents, say) can be
looked up. What is read are the parts that the manifest names, never others that lie beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from sources.reading import Place, RawInput, ReadConfig, Reading
from sources.watch import begins
from storage.errors import DatasetError, InputError
from storage.manifests import read_manifest
from storage.parts import read_batches
from storage.schema import OF_PAGES

KIND = "documents"
PACKAGES = ("pyarrow",)
_COLUMNS = ["doc_id", "text", "title", "url", "collected_at", "licence"]
_BATCH_ROWS = 256


def expand_documents(source: str, folder: str) -> list[RawInput]:
    """The parts of a dataset of documents; without a name, the source is the one that the dataset names.

    Raises InputError where the folder is no such dataset, and where neither names a source.
    """
    place = Path(folder).expanduser().absolute()
    try:
        manifest = read_manifest(place)
    except DatasetError as error:
        raise InputError(
            f"`{folder}` is no dataset that Gristmill wrote: {error.what}",
            at=str(place),
            hint="name the folder that `gristmill synthesize` printed; other files are read with `--parquet`",
        ) from error
    if manifest.kind != KIND:
        raise InputError(f"`{folder}` holds {manifest.kind}, not documents", at=str(place))
    named = source or str(manifest.stage.get("source") or "")
    if not named:
        raise InputError(
            f"the documents in `{folder}` come from several sources", at=str(place), hint=f"name one: `NAME={folder}`"
        )
    paths = [place / part.file for part in manifest.parts]
    return [
        RawInput(source=named, kind="documents", path=str(path), name=path.name, size=part.bytes)
        for path, part in zip(paths, manifest.parts, strict=True)
    ]


def read_documents(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    """Documents of the rows of one part. A part that cannot be read is one failure."""
    place = Place(raw.source, raw.name)
    try:
        if missing := set(_COLUMNS) - set(pq.read_schema(raw.path).names):
            yield place.failure("no_text", f"columns are missing: {', '.join(sorted(missing))}")
            return
        yield from _read(raw, config)
    except (DatasetError, OSError, ValueError) as error:
        yield place.failure("unreadable_parquet", str(error))


def _read(raw: RawInput, config: ReadConfig) -> Iterator[Reading]:
    number = 0
    # Datasets of earlier versions lack some of these.
    there = [name for name in (*OF_PAGES, "metadata_only") if name in pq.read_schema(raw.path).names]
    for batch in read_batches(Path(raw.path), [*_COLUMNS, *there], _BATCH_ROWS):
        for row in batch.to_pylist():
            place = Place(raw.source, raw.name, page=str(number))
            yield begins(place) or place.document(
                row["doc_id"],
                row["text"],
                title=row["title"],
                url=row["url"],
                collected_at=row["collected_at"],
                licence=row["licence"] or raw.licence,
                **{name: row[name] for name in there},
            )
            number += 1

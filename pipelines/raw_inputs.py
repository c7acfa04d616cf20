"""The raw inputs of a request: the files behind its names, how they are read, and which sources stand for what."""

from __future__ import annotations

from dataclasses import replace

from pipelines.request import RunRequest
from sources.ingest import IngestConfig
from sources.inputs import RawInput, expand_inputs, refuse_clashes
from sources.reading import Kind
from storage.errors import InputError

DEFAULT_PART_MEGABYTES = 256.0
READERS: dict[str, Kind] = {
    "web": "warc",
    "wet": "wet",
    "encyclopedia": "mediawiki",
    "jsonl": "jsonl",
    "parquet": "parquet",
    "dataset": "huggingface",
    "documents": "documents",
}


def inputs_of(request: RunRequest) -> list[RawInput]:
    """Every raw input that the request names. Raises InputError with what is wrong about a name."""
    found: list[RawInput] = []
    for kind, reader in READERS.items():
        for named in request.inputs.get(kind, ()):
            source, path = _split_name(kind, named)
            found.extend(_told(request, raw) for raw in expand_inputs(source, [path], kind=reader))
    refuse_clashes(found)
    if not found:
        raise InputError("the run has no input", hint="name some: `gristmill run --web 'crawl/*.warc.gz'`")
    return found


def _told(request: RunRequest, raw: RawInput) -> RawInput:
    """The input with its licence, and with the columns of its source before those of all."""
    columns = {name: column for name, column in request.columns.items() if ":" not in name}
    own = {
        name.partition(":")[2]: column for name, column in request.columns.items() if name.startswith(f"{raw.source}:")
    }
    return replace(raw, columns=tuple(sorted((columns | own).items())), licence=request.license.get(raw.source))


def _split_name(kind: str, named: str) -> tuple[str, str]:
    """`name=path` → (name, path); without a name the kind is the source's name, that of documents is in them."""
    name, equals, path = named.partition("=")
    if equals and name and "/" not in name and "?" not in name:
        return name, path
    if kind == "documents":
        return "", named
    return ("web" if kind == "wet" else kind), named


def reading_of(request: RunRequest) -> IngestConfig:
    """How the inputs are read."""
    megabytes = request.part_megabytes or DEFAULT_PART_MEGABYTES
    return IngestConfig(
        part_bytes=int(megabytes * 1_000_000),
        extraction=request.extraction,
    )


def labelled_sources(request: RunRequest) -> dict[str, list[str]]:
    """The names of the sources that stand for encyclopedia and for web where no labels are given."""
    kinds = {"encyclopedia": ("encyclopedia",), "web": ("web", "wet")}
    named = named_sources(request)
    return {
        side: sorted({source for kind, source in named if kind in named_kinds or source == side})
        for side, named_kinds in kinds.items()
    }


def named_sources(request: RunRequest) -> set[tuple[str, str]]:
    """(kind, source) of the inputs."""
    return {(kind, _split_name(kind, path)[0]) for kind, paths in request.inputs.items() for path in paths}


def bucket_sources_of(request: RunRequest) -> list[str]:
    """The sources whose text the quality buckets cut into twentieths.

    Those that the request names, else all; where the head learns from encyclopedia against web, all but the
    encyclopedia, whose documents it knows for good. Raises InputError for a name that no input has.
    """
    there = {source for _, source in named_sources(request)}
    if unknown := sorted(set(request.bucket_sources) - there):
        raise InputError(
            f"buckets are asked for by {', '.join(f'`{name}`' for name in unknown)}, but no input is called so",
            hint=f"the sources are {', '.join(f'`{name}`' for name in sorted(there))}",
        )
    learned = set() if request.labels else set(labelled_sources(request)["encyclopedia"])
    return sorted(request.bucket_sources or there - learned or there)

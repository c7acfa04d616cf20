"""The raw inputs of a request: the files behind its names, how they are read, and which sources stand for what."""

from __future__ import annotations

from dataclasses import replace

from pipelines.named_inputs import NamedInput, named_inputs
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
    "text": "text",
    "dataset": "huggingface",
    "documents": "documents",
}


def inputs_of(request: RunRequest) -> list[RawInput]:
    """Every raw input that the request names. Raises InputError with what is wrong about a name."""
    found = [raw for named in named_inputs(request) for raw in expand(named)]
    refuse_clashes(found)
    if not found:
        raise InputError("the run has no input", hint="name some: `gristmill run --web 'crawl/*.warc.gz'`")
    return found


def expand(named: NamedInput) -> list[RawInput]:
    """The files of one named input, each with its columns and licence."""
    columns = tuple(sorted(named.columns.items()))
    found = expand_inputs(named.source, [named.path], kind=READERS[named.kind])
    return [replace(raw, columns=columns, licence=named.licence, metadata_only=named.metadata_only) for raw in found]


def reading_of(request: RunRequest) -> IngestConfig:
    """How the inputs are read."""
    megabytes = request.part_megabytes or DEFAULT_PART_MEGABYTES
    return IngestConfig(
        part_bytes=int(megabytes * 1_000_000),
        extraction=request.extraction,
        http_statuses=request.http_status,
        mime_types=request.mime_type,
        languages=request.language,
        namespaces=request.namespace,
        wiki_parts=request.wiki_part,
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
    return {(named.kind, named.source) for named in named_inputs(request)}


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

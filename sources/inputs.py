"""What a user named, as a list of raw inputs: globs and folders expanded, kinds recognised, mistakes refused at once.

Order and names depend on the paths alone. An input's name is relative to the root that the user gave: the folder, the
part of a glob before its first wildcard, or the folder of a single file. doc_ids are made of it, not of absolute paths.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from sources.dumps.multistream import PIECE_BYTES, cut_at_streams
from sources.files import open_raw, read_bytes
from sources.reading import Kind, RawInput
from sources.remote.captures import base_beside
from sources.remote.common_crawl import expand_crawl, is_crawl_name
from sources.remote.places import filesystem_of, is_remote
from sources.remote.ranges import read_facts
from sources.tables.dataset_names import DEFAULT_SPLIT, DatasetName, is_hub_name, parse_dataset_name, resolve_commit
from sources.tables.documents import expand_documents
from sources.tables.huggingface import is_saved_dataset
from sources.tables.plain_text import split_text_name
from storage.errors import InputError
from storage.identity import fingerprint, hash_file

__all__ = ["Kind", "RawInput", "expand_inputs", "identify", "identity_of", "refuse_clashes"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_COMPRESSIONS = (".gz", ".bz2", ".zst", ".zstd", ".lz4", ".xz", ".tar", ".7z")
_ENDINGS: tuple[tuple[str, Kind], ...] = (
    (".warc.wet", "wet"), (".wet", "wet"), (".warc", "warc"), (".arc", "warc"), (".xml", "mediawiki"),
    (".jsonl", "jsonl"), (".ndjson", "jsonl"), (".json", "jsonl"), (".parquet", "parquet"),
)  # fmt: skip
_TEXTS = (".txt", ".text", ".md")
"""What is read where text is asked for, and nowhere else: a crawl's folder may hold a README."""
_KNOWN = ".warc, .arc, .wet, .xml, .jsonl (each also with .gz, .bz2, .zst, .lz4, .xz), .parquet"
_WILDCARDS = "*?["
INDEX_PREFIX = "cdx:"
_HASH_CHUNK_BYTES = 1 << 20


def expand_inputs(source: str, patterns: Sequence[str], *, kind: Kind | None = None) -> list[RawInput]:
    """The inputs of a source, sorted by name within each pattern. Patterns are files, folders, globs or fsspec URLs.

    The kind is guessed from each file's ending when none is given. Raises InputError: nothing there, an empty file, an
    unknown ending, one file named twice.
    """
    if kind is not None and kind not in KINDS:
        raise InputError(f"there is no kind of input `{kind}`", hint=f"the kinds are {', '.join(KINDS)}")
    found = [raw for pattern in patterns for raw in _expand(source, pattern, kind)]
    refuse_clashes(found)
    return [piece for raw in found for piece in _pieces(raw)]


def _pieces(raw: RawInput) -> list[RawInput]:
    return cut_at_streams(raw, partial(read_bytes, raw), PIECE_BYTES) if raw.kind == "mediawiki" else [raw]


def refuse_clashes(inputs: Iterable[RawInput]) -> None:
    """Raise InputError if one file is named twice, or two files of a source have one name and so one set of doc_ids."""
    paths: dict[str, RawInput] = {}
    names: dict[tuple[str, str], RawInput] = {}
    for raw in inputs:
        path = _place(raw)
        if other := paths.get(path):
            raise InputError(
                f"one input is named twice, as `{other.name}` of `{other.source}` and `{raw.name}` of `{raw.source}`",
                at=raw.path,
                hint="name it once: patterns must not overlap",
            )
        if other := names.get((raw.source, raw.name)):
            raise InputError(
                f"two inputs of source `{raw.source}` have the name `{raw.name}`: their documents would be mixed up",
                at=f"{other.path} and {raw.path}",
                hint="name the folder above both, or give them different sources: `first=A --web second=B`",
            )
        paths[path] = names[raw.source, raw.name] = raw


def _place(raw: RawInput) -> str:
    """Where an input's records are: of datasets, subset and split are places of their own."""
    path = raw.path if is_remote(raw.path) or raw.revision else os.path.realpath(raw.path)
    path = f"{path}#{raw.start}" if raw.start else path
    return path if raw.kind != "huggingface" else f"{path}?{raw.subset}&{raw.split or DEFAULT_SPLIT}&{raw.revision}"


def identity_of(raw: RawInput) -> list[Any]:
    """What of an input decides its documents: name, content, and how it is read."""
    return [raw.source, raw.name, raw.columns, raw.licence, raw.separator, raw.metadata_only, identify(raw)]


def identify(raw: RawInput) -> str:
    """What the input holds: `sha256:…`, `etag:…` of a remote file that has one, `commit:…` of a hub dataset."""
    if raw.revision:
        return f"commit:{raw.revision}"
    if raw.kind == "captures":
        return f"captures:{fingerprint([hash_file(Path(raw.path)), raw.base, raw.subset])}"
    if is_remote(raw.path):
        return _identify_remote(raw)
    path = Path(raw.path)
    if raw.stop is not None:
        return f"sha256:{_hash_raw(raw)}"
    if not path.is_dir():
        return f"sha256:{hash_file(path)}"
    files = sorted(found for found in path.rglob("*") if found.is_file())
    return f"sha256-tree:{fingerprint([[found.relative_to(path).as_posix(), hash_file(found)] for found in files])}"


def _expand(source: str, pattern: str, kind: Kind | None) -> list[RawInput]:
    if not pattern.strip():
        raise InputError(f"an input of source `{source}` is an empty string", hint="name a file, a folder or a glob")
    if kind == "huggingface":
        return [_describe_dataset(source, parse_dataset_name(source, pattern))]
    if kind == "documents":
        return expand_documents(source, pattern)
    if kind == "text":
        path, separator = split_text_name(pattern)
        return [replace(raw, separator=separator) for raw in _expand_files(source, path, kind)]
    if is_crawl_name(pattern):
        return expand_crawl(source, pattern, kind)
    if pattern.startswith(INDEX_PREFIX):
        return [_describe_index(source, pattern)]
    return _expand_files(source, pattern, kind)


def _expand_files(source: str, pattern: str, kind: Kind | None) -> list[RawInput]:
    if is_remote(pattern):
        return _expand_remote(source, pattern, kind)
    path = Path(pattern).expanduser()
    found = _expand_local(source, pattern, path, kind)
    _refuse_empty(found, [raw.size for raw in found])
    return found


def _expand_local(source: str, pattern: str, path: Path, kind: Kind | None) -> list[RawInput]:
    if path.is_dir():
        return _expand_folder(source, path, kind)
    if path.exists():
        return [_describe(source, path, path.parent, kind)]
    if not any(mark in pattern for mark in _WILDCARDS):
        raise InputError(f"no file `{pattern}` for source `{source}`", at=str(path.absolute()), hint=_nearby(path))
    return _expand_glob(source, str(path), kind)


def _refuse_empty(found: list[RawInput], sizes: Sequence[int | None]) -> None:
    """Raise InputError when nothing that a pattern names holds a byte; an empty file among others is a failures row."""
    if any(size != 0 for size in sizes):
        return
    more = f", as all {len(found)} files that the pattern matches" if len(found) > 1 else ""
    raise InputError(
        f"`{found[0].name}` of source `{found[0].source}` is empty (0 bytes){more}",
        at=found[0].path,
        hint="was it downloaded to the end?",
    )


def _expand_folder(source: str, folder: Path, kind: Kind | None) -> list[RawInput]:
    """Files of known endings below a folder; the folder itself if it is a saved dataset."""
    if kind is None and is_saved_dataset(folder):
        return [_describe_dataset(source, DatasetName(path=str(folder)))]
    files = sorted(found for found in folder.rglob("*") if found.is_file() and not found.name.startswith("."))
    wanted = [found for found in files if _is_wanted(found.name, kind)]
    if not wanted:
        what = f"of kind {kind}" if kind else "with a known ending"
        raise InputError(
            f"the folder `{folder}` of source `{source}` holds no file {what}",
            at=str(folder.absolute()),
            hint=f"known endings: {_KNOWN}",
        )
    return [_describe(source, found, folder, kind) for found in wanted]


def _describe_dataset(source: str, dataset: DatasetName) -> RawInput:
    """A folder as it is, or a name on the hub with the commit that its revision is now."""
    folder = Path(dataset.path).expanduser()
    chosen: dict[str, Any] = {"subset": dataset.subset, "split": dataset.split}
    if folder.is_dir():
        if dataset.revision:
            raise InputError(
                f"the dataset of source `{source}` is a folder, and a folder has no revision `{dataset.revision}`",
                at=str(folder.absolute()),
                hint="leave `revision` out; to read from the hub, name it by `owner/name`",
            )
        size = sum(found.stat().st_size for found in folder.rglob("*") if found.is_file())
        path, name = str(folder.absolute()), dataset.label(folder.name)
        return RawInput(source=source, kind="huggingface", path=path, name=name, size=size, **chosen)
    if folder.exists() or not is_hub_name(dataset.path):
        raise InputError(
            f"`{dataset.path}` of source `{source}` is no folder and no name of the hub, so it is no dataset",
            at=str(folder.absolute()),
            hint="name a folder that `save_to_disk` wrote, a folder of data files, or `owner/name`; files and URLs are "
            "read with `--jsonl` and `--parquet`",
        )
    commit = resolve_commit(dataset.path, dataset.revision)
    name = dataset.label(dataset.path)
    return RawInput(source=source, kind="huggingface", path=dataset.path, name=name, size=0, revision=commit, **chosen)


def _expand_glob(source: str, pattern: str, kind: Kind | None) -> list[RawInput]:
    fixed = pattern[: min(pattern.index(mark) for mark in _WILDCARDS if mark in pattern)]
    root = Path(fixed).parent if not fixed.endswith("/") else Path(fixed)
    files = [Path(found) for found in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(found)]
    if not files:
        raise InputError(
            f"the pattern `{pattern}` of source `{source}` matches no file",
            at=str(root.absolute()),
            hint=_nearby(root / "x") if root.is_dir() else f"there is no folder `{root}`",
        )
    return [_describe(source, found, root, kind) for found in files]


def _describe(source: str, path: Path, root: Path, kind: Kind | None) -> RawInput:
    try:
        size = path.stat().st_size
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InputError(f"cannot read `{path}` of source `{source}`: {error.strerror}", at=str(path)) from error
    return _checked(source, str(path.absolute()), path.relative_to(root).as_posix(), size, kind)


def _checked(source: str, path: str, name: str, size: int | None, kind: Kind | None) -> RawInput:
    found = kind or _guess_kind(name)
    if found is None:
        raise InputError(
            f"cannot tell what `{name}` of source `{source}` is by its ending",
            at=path,
            hint=f"known endings: {_KNOWN}; or say what it is with `--web`, `--encyclopedia`, `--jsonl` and the like",
        )
    return RawInput(source=source, kind=found, path=path, name=name, size=size or 0)


def _guess_kind(name: str) -> Kind | None:
    return next((kind for ending, kind in _ENDINGS if _bare(name).endswith(ending)), None)


def _is_wanted(name: str, kind: Kind | None) -> bool:
    """Whether a file of a folder is of the kind; without one, of any that is known."""
    if kind == "text":
        return _bare(name).endswith(_TEXTS)
    guessed = _guess_kind(name)
    return guessed is not None and kind in (None, guessed)


def _bare(name: str) -> str:
    """A file's name in small letters, without the endings of compressions."""
    name = name.lower()
    for compression in _COMPRESSIONS:
        name = name.removesuffix(compression)
    return name


def _nearby(path: Path) -> str:
    """The names beside a path that is not there."""
    if not path.parent.is_dir():
        return f"there is no folder `{path.parent}`"
    names = sorted(entry.name for entry in os.scandir(path.parent))[:5]
    return f"in `{path.parent}` there is {', '.join(names)}" if names else f"`{path.parent}` is empty"


def _expand_remote(source: str, pattern: str, kind: Kind | None) -> list[RawInput]:
    filesystem, inner = filesystem_of(pattern)
    try:
        if any(mark in inner for mark in "*["):
            fixed = inner[: min(inner.index(mark) for mark in "*[" if mark in inner)]
            root, files = fixed.rpartition("/")[0], sorted(filesystem.glob(inner))
        elif filesystem.isdir(inner):
            root, files = (
                inner.rstrip("/"),
                [name for name in sorted(filesystem.find(inner)) if _is_wanted(name, kind)],
            )
        else:
            root, files = inner.rpartition("/")[0], [inner]
        facts = [filesystem.info(file) for file in files]
    except OSError as error:
        raise InputError(
            f"cannot list `{pattern}` of source `{source}`: {error}",
            at=pattern,
            hint="is the address right, in reach, and open to you?",
        ) from error
    if not files:
        raise InputError(f"`{pattern}` of source `{source}` matches nothing", at=pattern, hint="list it with `fsspec`")
    protocol = pattern.partition("://")[0]
    found = [
        _checked(source, _url(protocol, file), file.removeprefix(root).lstrip("/"), info.get("size"), kind)
        for file, info in zip(files, facts, strict=True)
    ]
    _refuse_empty(found, [info.get("size") for info in facts])
    return found


def _url(protocol: str, path: str) -> str:
    return path if is_remote(path) else f"{protocol}://{path}"


def _identify_remote(raw: RawInput) -> str:
    """By the server's ETag, so that nothing is fetched; by its bytes where there is none."""
    if etag := read_facts(raw.path).etag:
        return f"etag:{etag}"
    return f"sha256:{_hash_raw(raw)}"


def _hash_raw(raw: RawInput) -> str:
    digest = hashlib.sha256()
    with open_raw(raw) as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _describe_index(source: str, pattern: str) -> RawInput:
    """`cdx:FILE[?base=PLACE]`: an index file, and where the files that it names lie (beside it by default)."""
    named, _, query = pattern.removeprefix(INDEX_PREFIX).partition("?base=")
    path = Path(named).expanduser()
    if not path.is_file():
        raise InputError(f"there is no index file `{named}` for source `{source}`", at=str(path.absolute()))
    base = query.rstrip("/") or base_beside(path)
    size = path.stat().st_size
    return RawInput(source=source, kind="captures", path=str(path.absolute()), name=path.name, size=size, base=base)

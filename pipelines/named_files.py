"""The files that a request names, and the identity by which a finished run is recognised.

Nothing is read but YAML: names, sizes and modification times of all files are enough to know a finished run in well
under a second, before Prefect or Ray starts. Stages never rely on it: they hash what they read.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.named_inputs import NamedInput, named_inputs
from pipelines.request import RunRequest
from sources.tables.plain_text import SEPARATOR
from storage.errors import RecipeError
from storage.identity import fingerprint, hash_file
from storage.manifests import MANIFEST
from storage.stage import package_versions


def local_files(request: RunRequest) -> list[Path]:
    """The local files among the inputs, globs expanded, in order; URLs are left out."""
    from glob import glob

    found: list[Path] = []
    for named in _inputs(request):
        path = _local_path(named)
        if "://" not in path:
            names = sorted(glob(os.path.expanduser(path), recursive=True))
            found.extend(Path(name) / (MANIFEST if named.kind == "documents" else "") for name in names)
    return [path for path in found if path.exists()]


def _inputs(request: RunRequest) -> list[NamedInput]:
    """The inputs; none of a recipe that is none, which the run will say."""
    try:
        return named_inputs(request)
    except RecipeError:
        return []


def _local_path(named: NamedInput) -> str:
    """What of an input may be a local file: without the options of a dataset, a text, or an index of captures."""
    if named.path.startswith("cdx:"):
        return named.path.removeprefix("cdx:").partition("?base=")[0]
    mark = {"dataset": "?", "text": SEPARATOR}.get(named.kind)
    return named.path.partition(mark)[0] if mark else named.path


def _matching(named: Sequence[str]) -> list[Path]:
    """The local files of `[name=]path` globs, in order."""
    from glob import glob

    return [Path(name) for item in named for name in sorted(glob(os.path.expanduser(item.split("=", 1)[-1])))]


def _named_files(request: RunRequest) -> list[Path]:
    """The files that options name, and those right in folders that they name: models, labels, lists, a preset.

    An option may hold a path among other words (`NAME=MODEL:clip=0..5`), so each of its words is tried.
    """
    skipped = {"inputs", "benchmarks", "out", "columns", "license", "metadata_only", "benchmark_fields"}
    texts = list(_texts([value for name, value in request.to_json().items() if name not in skipped]))
    words = sorted({word for text in texts for word in (text, *re.split("[=:,]", text)) if word})
    places = [path for path in (Path(word).expanduser() for word in words) if path.exists()]
    around = {request.root, *request.root.parents}
    folders = [path for path in places if path.is_dir() and path.absolute() not in around]
    found = [path for path in places if path.is_file()]
    return found + [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def quick_identity(request: RunRequest, yaml_files: Sequence[Path]) -> str:
    """32 hex digits of the request, the sizes and times of the files it names, its YAML files and the versions here."""
    where = {"sign_on", "out", "ray_address", "workers", "train_processes"}
    asked = {name: value for name, value in request.to_json().items() if name not in where}
    files = [*local_files(request), *_matching(request.benchmarks), *_named_files(request)]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return fingerprint(
        {
            "request": asked,
            "inputs": [[name, size, time] for name, size, time in stats],
            "yaml": [hash_file(path) for path in yaml_files if path.is_file()],
            "versions": package_versions(("gristmill", "ray", "prefect", "torch", "duckdb")),
            "python": list(sys.version_info[:2]),
        }
    )

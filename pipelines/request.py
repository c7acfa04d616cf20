"""A run's request: what a person asked for, in one frozen value that a command line, a deployment and a test all make.

`quick_identity` reads no input, only names, sizes and modification times: it is how a finished run is recognised in
well under a second, before Prefect or Ray starts. Stages never rely on it: they hash what they read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from storage.errors import InputError
from storage.identity import fingerprint, hash_file
from storage.manifests import MANIFEST
from storage.stage import package_versions

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("web", "wet", "encyclopedia", "jsonl", "parquet", "dataset", "documents")
"""Options of `gristmill run`; the first three also name the source that their documents come from by default."""

REQUEST_FILE = "run.json"


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Everything that decides a run's result, and where it runs.

    `inputs` maps a kind to paths, globs or URLs, each optionally as `name=path` (a dataset's may go on with
    `?subset=…&split=…&revision=…`); without any, the embedded sample is taken. `recipe` and `policy` are paths or the
    names of shipped ones; `policy` None means the recipe's. `bucket_sources` names the sources whose text sets the
    quality buckets (none: all, without labels all but the encyclopedia). `rewrite` names rewrites in their order, each
    `NAME` or `NAME:option=value,…`; `measure` likewise names measurements beyond those of every run.
    `near` is the search for near-duplicates, `PRESET[:option=value,…]` (None: the policy's).
    `repeated_spans` and `repeated_lines` say which repeated passages are looked for (None: none).
    `semantic`: pairs of documents are looked for whose vectors have at least this cosine (None: none are).
    `sign_on`: whether signatures are made on GPUs, where the cluster has any; they are the same to the bit.
    `duplicate_alarm`: a source that loses more than this share of its documents to duplicates is reported.
    `score` names scorers, each `NAME=MODEL[:option=value,…]`, which read the texts that pass the policy's gate.
    `fluency_model` None: fluency is not measured. `refit`: what an earlier run of this
    folder fitted (fluency's thirds, a policy's percentiles, scorers' buckets) is fitted anew. `part_megabytes` is the
    text of a documents part (None: 256 MB, the sample 1 MB). `extraction` is how the text of web pages is found.
    `benchmarks` are paths or globs, each optionally as `name=path`, whose items are looked for in the documents;
    `benchmark_fields` names their fields by role.
    """

    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    out: str = "runs/default"
    recipe: str = "web_wiki"
    policy: str | None = None
    labels: str | None = None
    bucket_sources: tuple[str, ...] = ()
    language_model: str | None = None
    entity_model: str | None = None
    rewrite: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    benchmark_fields: Mapping[str, str] = field(default_factory=dict)
    measure: tuple[str, ...] = ()
    repeated_spans: str | None = None
    repeated_lines: str | None = None
    near: str | None = None
    semantic: float | None = None
    sign_on: Literal["cpu", "gpu"] = "cpu"
    duplicate_alarm: float = 0.5
    encoder: str | None = None
    score: tuple[str, ...] = ()
    fluency_model: str | None = None
    fluency_tokenizer: str | None = None
    refit: bool = False
    preset: str = "tiny"
    train_steps: int | None = None
    train_processes: int = 1
    part_megabytes: float | None = None
    extraction: Literal["best", "fast", "union"] = "best"
    license: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    ray_address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Take the list that JSON makes of a tuple, and refuse what cannot be run."""
        object.__setattr__(self, "bucket_sources", tuple(self.bucket_sources))
        object.__setattr__(self, "benchmarks", tuple(self.benchmarks))
        object.__setattr__(self, "measure", tuple(self.measure))
        object.__setattr__(self, "score", tuple(self.score))
        unknown = sorted(set(self.inputs) - set(KINDS))
        if unknown:
            raise InputError(f"unknown kind of input: {', '.join(unknown)}", hint=f"the kinds are {', '.join(KINDS)}")
        _check_out(self.out)
        if self.part_megabytes is not None and self.part_megabytes <= 0:
            raise InputError(f"part_megabytes is {self.part_megabytes}; it must be above 0")
        if self.sign_on not in ("cpu", "gpu"):
            raise InputError(f"sign_on is {self.sign_on!r}; it must be `cpu` or `gpu`")
        if self.extraction not in ("best", "fast", "union"):
            raise InputError(f"extraction is {self.extraction!r}; it must be `best`, `fast` or `union`")
        if not 0 < self.duplicate_alarm <= 1:
            raise InputError(f"duplicate_alarm is {self.duplicate_alarm:g}; it must be above 0 and at most 1")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers is {self.workers}; it must be at least 1")
        if self.train_steps is not None and self.train_steps < 1:
            raise InputError(f"train_steps is {self.train_steps}; it must be at least 1")
        if self.train_processes < 1:
            raise InputError(f"train_processes is {self.train_processes}; it must be at least 1")

    @property
    def root(self) -> Path:
        return Path(self.out).absolute()

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        values["inputs"] = {kind: list(paths) for kind, paths in self.inputs.items()}
        return values


def _check_out(out: str) -> None:
    """Raises InputError for a run folder that is none: a URL, or nothing."""
    if not out.strip():
        raise InputError("`--out` is an empty string", hint="name the run's folder: `--out runs/first`")
    if "://" in out:
        raise InputError(
            f"`--out {out}` is a URL; a run is written to a folder of a file system",
            at=out,
            hint="inputs may be remote, outputs may not: name a local or mounted folder, and copy the finished run",
        )


def request_from_json(values: Mapping[str, Any]) -> RunRequest:
    inputs = {kind: tuple(paths) for kind, paths in values.get("inputs", {}).items()}
    return RunRequest(**{**values, "inputs": inputs, "rewrite": tuple(values.get("rewrite", ()))})


def saved_request(root: Path) -> RunRequest:
    """The request that a run folder was made by. Raises InputError where there is none."""
    try:
        return request_from_json(json.loads((root / REQUEST_FILE).read_bytes())["request"])
    except FileNotFoundError as error:
        raise InputError(
            "there is no run here", at=str(root), hint="name a run's folder with `--out`, or make one: `gristmill run`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the run's request cannot be read: {error}",
            at=str(root / REQUEST_FILE),
            hint="run again with a new `--out`",
        ) from error


def local_files(request: RunRequest) -> list[Path]:
    """The local files among the inputs, globs expanded, in order; URLs are left out."""
    from glob import glob

    found: list[Path] = []
    for kind in sorted(request.inputs):
        for named in request.inputs[kind]:
            path = _local_path(kind, named)
            if "://" not in path:
                names = sorted(glob(os.path.expanduser(path), recursive=True))
                found.extend(Path(name) / (MANIFEST if kind == "documents" else "") for name in names)
    return [path for path in found if path.exists()]


def _local_path(kind: str, named: str) -> str:
    """What of `[name=]path` may be a local file: without the options of a dataset, or of an index of captures."""
    before, _, index = named.partition("cdx:")
    if index and (not before or before.endswith("=")):
        return index.partition("?base=")[0]
    return (named.split("?")[0] if kind == "dataset" else named).split("=", 1)[-1]


def _matching(named: Sequence[str]) -> list[Path]:
    """The local files of `[name=]path` globs, in order."""
    from glob import glob

    return [Path(name) for item in named for name in sorted(glob(os.path.expanduser(item.split("=", 1)[-1])))]


def _named_files(request: RunRequest) -> list[Path]:
    """The files that options name, and those right in folders that they name: models, labels, lists, a preset.

    An option may hold a path among other words (`NAME=MODEL:clip=0..5`), so each of its words is tried.
    """
    skipped = {"inputs", "benchmarks", "out", "columns", "license", "benchmark_fields"}
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

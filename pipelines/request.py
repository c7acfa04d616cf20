"""A run's request: what a person asked for, in one frozen value that command lines, deployments and tests all make."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mixtures.inputs import KINDS
from sources.reading import WikiPart
from storage.errors import InputError

ROOT = Path(__file__).resolve().parent.parent

REQUEST_FILE = "run.json"


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Everything that decides a run's result, and where it runs.

    `inputs` maps a kind to paths, globs or URLs, each optionally as `name=path` (a dataset's may go on with
    `?subset=…&split=…&revision=…`); the recipe's inputs are read besides, and without any the embedded sample is taken.
    `columns` says which column is a field (`text`, or `forum:text` for one source), `license` a source's; the texts of
    `metadata_only` sources are measured and never passed on. `recipe` and `policy` are paths or the names of shipped
    ones; `policy` None means the recipe's. `bucket_sources` names the sources whose text sets the quality buckets
    (none: all, without labels all but the encyclopedia). `rewrite` names rewrites in their order, each `NAME` or
    `NAME:option=value,…`; `measure` likewise names measurements beyond those of every run. `near` is the search for
    near-duplicates, `PRESET[:option=value,…]` (None: the policy's).
    `repeated_spans` and `repeated_lines` say which repeated passages are looked for (None: none).
    `semantic`: pairs of documents are looked for whose vectors have at least this cosine (None: none are).
    `sign_on`: whether signatures are made on GPUs, where the cluster has any; they are the same to the bit.
    `duplicate_alarm`: a source that loses more than this share of its documents to duplicates is reported.
    `score` names scorers, each `NAME=MODEL[:option=value,…]`, which read the texts that pass the policy's gate.
    `fluency_model` None: fluency is not measured. `refit`: what an earlier run of this
    folder fitted (fluency's thirds, a policy's percentiles, scorers' buckets) is fitted anew. `part_megabytes` is the
    text of a documents part (None: 256 MB, the sample 1 MB). `extraction` is how the text of web pages is found,
    `http_status`, `mime_type` and `language` say which pages are read (no language: all).
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
    http_status: tuple[int, ...] = (200,)
    mime_type: tuple[str, ...] = ("text/html", "application/xhtml+xml")
    language: tuple[str, ...] = ()
    namespace: tuple[int, ...] = (0,)
    wiki_part: tuple[WikiPart, ...] = ("headings", "lists", "tables")
    license: Mapping[str, str] = field(default_factory=dict)
    metadata_only: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    ray_address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Take the list that JSON makes of a tuple, and refuse what cannot be run."""
        object.__setattr__(self, "bucket_sources", tuple(self.bucket_sources))
        object.__setattr__(self, "benchmarks", tuple(self.benchmarks))
        object.__setattr__(self, "measure", tuple(self.measure))
        object.__setattr__(self, "score", tuple(self.score))
        for name in ("http_status", "mime_type", "language", "namespace", "wiki_part", "metadata_only"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
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

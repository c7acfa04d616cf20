"""The run folder: where each dataset of a run lies, and the record of every step that made one.

A step's record is written after its datasets: a record whose identity is the one asked for means that the step needs
no job. Folders keep the parts of earlier configurations, which later runs reuse until `gristmill gc`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.manifests import MANIFEST

FORMAT_VERSION = 1


@dataclass(frozen=True)
class RunFolder:
    """Paths below `--out`."""

    root: Path

    @property
    def ingested(self) -> Path:
        return self.root / "documents"

    @property
    def rewritten(self) -> Path:
        return self.root / "rewritten"

    @property
    def cut(self) -> Path:
        return self.root / "cut"

    @property
    def uncut(self) -> Path:
        """What repeated spans are searched in: the rewritten documents of a run that has them."""
        return self.rewritten if (self.rewritten / MANIFEST).exists() else self.ingested

    @property
    def documents(self) -> Path:
        """What every step after ingest, rewrite and spans reads: the documents as the last of them wrote them."""
        return self.cut if (self.cut / MANIFEST).exists() else self.uncut

    @property
    def rewrites(self) -> Path:
        return self.root / "attributes" / "rewrites"

    @property
    def repeated(self) -> Path:
        return self.root / "attributes" / "repeated"

    @property
    def spans(self) -> Path:
        """Work files of the search for repeated spans."""
        return self.root / "spans"

    def of_texts(self) -> list[Path]:
        """Attributes that tell how the texts came to be; those of cut texts hold what earlier rewrites did, too."""
        places = [self.repeated] if self.documents == self.cut else [self.rewrites, self.repeated]
        return [place for place in places if (place / MANIFEST).exists()]

    @property
    def measured(self) -> Path:
        return self.root / "attributes" / "measure"

    @property
    def embeddings(self) -> Path:
        return self.root / "attributes" / "embeddings"

    @property
    def quality(self) -> Path:
        return self.root / "attributes" / "quality"

    def classified(self, stage: str) -> Path:
        """What one classifier said of every text that it was given."""
        return self.root / "attributes" / "classified" / stage

    @property
    def scores(self) -> Path:
        return self.root / "attributes" / "scores"

    @property
    def losses(self) -> Path:
        return self.root / "attributes" / "losses"

    @property
    def fluency(self) -> Path:
        return self.root / "attributes" / "fluency"

    @property
    def duplicates(self) -> Path:
        return self.root / "duplicates"

    @property
    def catalogue(self) -> Path:
        return self.root / "catalogue"

    @property
    def hosts(self) -> Path:
        return self.catalogue / "hosts"

    @property
    def contamination(self) -> Path:
        return self.root / "contamination"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def steps(self) -> Path:
        return self.root / "steps"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def percentiles(self) -> Path:
        return self.root / "artifacts" / "percentiles"

    def failures(self, stage: str) -> Path:
        return self.root / "failures" / stage

    def artifact(self, name: str, identity: str) -> Path:
        return self.root / "artifacts" / name / identity

    def annotations(self, place: str) -> Path:
        return self.root / "annotations" / place

    def synthesis(self, place: str) -> Path:
        return self.root / "synthesis" / place

    def decisions(self, policy: str) -> Path:
        return self.root / "decisions" / policy

    def vocabulary(self, tokenizer_hash: str) -> Path:
        return self.root / "vocabularies" / tokenizer_hash

    def tokens(self, tokenizer_hash: str) -> Path:
        return self.root / "tokens" / tokenizer_hash

    def mixture(self, identity: str) -> Path:
        return self.root / "mixtures" / identity

    def checkpoints(self, identity: str) -> Path:
        return self.root / "checkpoints" / identity


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What a finished step left: its identity, its small results, and what it cost."""

    step: str
    identity: str
    result: Mapping[str, Any]
    costs: Mapping[str, Any]
    submission_id: str = ""


def write_step(folder: RunFolder, record: StepRecord) -> None:
    values = {
        "format_version": FORMAT_VERSION,
        "step": record.step,
        "identity": record.identity,
        "result": record.result,
        "costs": record.costs,
        "submission_id": record.submission_id,
    }
    path = folder.steps / f"{record.step}.json"
    write_atomically(path, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())


def find_step(folder: RunFolder, step: str) -> StepRecord | None:
    """The record of a step, or None. Raises DatasetError when it cannot be read."""
    path = folder.steps / f"{step}.json"
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DatasetError("the record of a step is not JSON", at=str(path), hint="remove it and run again") from error
    if values.pop("format_version", None) != FORMAT_VERSION:
        raise DatasetError(
            "the record of a step has another format_version",
            at=str(path),
            hint="remove it: the step is done again, and finished parts are reused",
        )
    return StepRecord(**values)


def require_step(folder: RunFolder, step: str) -> StepRecord:
    """The record of a step. Raises DatasetError when the step has not been done here."""
    if record := find_step(folder, step):
        return record
    raise DatasetError(
        f"the step `{step}` has not been done in this run",
        at=str(folder.root),
        hint=f"run `gristmill run --out {folder.root}` with your inputs first",
    )


def forget_rewrites(folder: RunFolder) -> None:
    """Unpublish what an earlier request rewrote; its parts stay for a later one, until `gristmill gc`."""
    for file in (folder.rewritten / MANIFEST, folder.rewrites / MANIFEST, folder.steps / "rewrite.json"):
        file.unlink(missing_ok=True)


def forget_spans(folder: RunFolder) -> None:
    """Unpublish what an earlier request measured of repeated spans, and cut; the parts stay until `gristmill gc`."""
    for file in (folder.cut / MANIFEST, folder.repeated / MANIFEST, folder.steps / "spans.json"):
        file.unlink(missing_ok=True)

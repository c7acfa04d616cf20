"""A request for synthesis: which documents a language model writes from, by which brief, and where the model is.

Invariant: the identity of what is written counts the brief's wording, the model and its seed; not how many documents
are asked for, nor where the model runs, nor what screening lets through. So a larger sample pays for what it adds, and
another limit or another benchmark screens the same drafts again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from classifiers.synthesis.brief import brief_from_json
from classifiers.synthesis.samples import Author
from mixtures.strata import SampleConfig, Share
from pipelines.briefs import load_brief
from pipelines.contamination import contamination_spec
from pipelines.language_models import ModelRequest, find_model
from pipelines.request import RunRequest
from pipelines.run_folder import RunFolder, require_step
from storage.errors import InputError
from storage.identity import fingerprint
from storage.manifests import find_manifest, read_manifest

SHORT_IDENTITY = 12
NEAR = 0.8
"""The Jaccard similarity from which of two texts one is a near-duplicate."""


@dataclass(frozen=True, kw_only=True)
class SynthesisRequest(ModelRequest):
    """What is asked for, and of which model. `where` and `most_copied` None: as the brief says. `benchmarks` are paths
    or globs, each optionally as `name=path`, whose items must not stand in what is written."""

    out: str = "runs/default"
    brief: str = "chain_of_thought"
    sample: int = 1000
    most_per_stratum: int | None = None
    share: Share = "proportional"
    where: str | None = None
    dropped: bool = False
    seed: int = 0
    most_copied: float | None = None
    benchmarks: tuple[str, ...] = ()
    benchmark_fields: Mapping[str, str] = field(default_factory=dict)
    ray_address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Take the list that JSON makes of a tuple."""
        super().__post_init__()
        object.__setattr__(self, "benchmarks", tuple(self.benchmarks))
        if self.most_copied is not None and not 0 <= self.most_copied <= 1:
            raise InputError(f"most_copied is {self.most_copied:g}; it is a share, from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class SynthesisPlan:
    """A request with everything looked up: where the texts go, and what the job is told."""

    place: str
    identity: str
    spec: dict[str, Any]
    gpus: int


def plan_synthesis(request: SynthesisRequest, folder: RunFolder) -> SynthesisPlan:
    """Look up brief, model and run. Raises a CurationError for what of them is not there."""
    brief = load_brief(request.brief)
    judged = require_step(folder, "judge").result
    sample = SampleConfig(
        documents=request.sample,
        most=request.most_per_stratum,
        where=request.where or brief.where,
        share=request.share,
        kept_only=not request.dropped,
        seed=request.seed,
    )
    limits = {"copied": brief.most_copied if request.most_copied is None else request.most_copied, "near": NEAR}
    benchmarks = _benchmarks(request)
    model = find_model(request)
    author = Author(brief=brief, model=model.name, model_identity=model.identity, seed=request.seed)
    spec = {
        "place": f"{brief.name}-{author.identity()[:SHORT_IDENTITY]}",
        "policy": judged["policy"],
        "sample": asdict(sample),
        "author": asdict(author),
        "model": dict(model.told),
        "limits": limits,
        "benchmarks": benchmarks,
    }
    asked = [sample, read_manifest(folder.catalogue).identity, limits, benchmarks]
    spec["identity"] = fingerprint({"synthesize": author.identity(), "asked": asked})
    return SynthesisPlan(place=spec["place"], identity=spec["identity"], spec=spec, gpus=model.gpus)


def _benchmarks(request: SynthesisRequest) -> str | None:
    """What the job is told of benchmarks, as a run is."""
    fields = dict(request.benchmark_fields)
    return contamination_spec(RunRequest(benchmarks=request.benchmarks, benchmark_fields=fields))


def find_finished(folder: RunFolder, plan: SynthesisPlan) -> dict[str, Any] | None:
    """The counts of an earlier run of the same request of which nothing would be asked again; else None."""
    manifest = find_manifest(folder.synthesis(plan.place))
    facts = manifest.facts if manifest else {}
    is_whole = facts.get("asked") == plan.identity and not facts["failed"].keys() - FINAL
    return {"place": plan.place, **facts} if is_whole else None


FINAL = frozenset({"too_short", "empty_text"})
"""Reasons that asking again does not mend."""


def author_from_json(values: Mapping[str, Any]) -> Author:
    return dataclasses.replace(Author(**values), brief=brief_from_json(values["brief"]))

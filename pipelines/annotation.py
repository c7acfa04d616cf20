"""A request for annotation: which documents a language model rates, by which rubric, and where the model is.

Invariant: the identity of what is written counts the rubric's wording, the model, its seed and temperature; not how
many documents are asked for, nor where the model runs. So a larger sample pays for what it adds, and no key or address
is part of a label.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from classifiers.annotation.labels import Origin
from classifiers.annotation.rubric import Rubric
from classifiers.llm.asking import Sampling
from mixtures.strata import SampleConfig, Share
from pipelines.language_models import ModelRequest, find_model
from pipelines.rubrics import load_rubric
from pipelines.run_folder import RunFolder, require_step
from storage.errors import InputError
from storage.identity import fingerprint
from storage.manifests import find_manifest, read_manifest

DEFAULT_RUBRIC = "educational_direct_en"
SHORT_IDENTITY = 12


@dataclass(frozen=True, kw_only=True)
class AnnotationRequest(ModelRequest):
    """What is asked for, and of which model."""

    out: str = "runs/default"
    rubric: str = DEFAULT_RUBRIC
    sample: int = 1000
    most_per_stratum: int | None = None
    share: Share = "proportional"
    where: str | None = None
    dropped: bool = False
    seed: int = 0
    temperature: float = 0.0
    ray_address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature:g}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class AnnotationPlan:
    """A request with everything looked up: where the labels go, and what the job is told."""

    place: str
    identity: str
    spec: dict[str, Any]
    gpus: int


def plan_annotation(request: AnnotationRequest, folder: RunFolder) -> AnnotationPlan:
    """Look up rubric, model and run. Raises a CurationError for what of them is not there."""
    rubric = load_rubric(request.rubric)
    judged = require_step(folder, "judge").result
    sample = SampleConfig(
        documents=request.sample,
        most=request.most_per_stratum,
        where=request.where,
        share=request.share,
        kept_only=not request.dropped,
        seed=request.seed,
    )
    model = find_model(request)
    origin = Origin(
        rubric=rubric,
        model=model.name,
        model_identity=model.identity,
        sampling=Sampling(temperature=request.temperature, seed=request.seed),
    )
    spec = {
        "place": f"{rubric.name}-{origin.identity()[:SHORT_IDENTITY]}",
        "policy": judged["policy"],
        "sample": asdict(sample),
        "origin": origin_to_json(origin),
        "model": dict(model.told),
    }
    catalogue = read_manifest(folder.catalogue).identity
    identity = fingerprint({"annotate": origin.identity(), "sample": sample, "catalogue": catalogue})
    spec["identity"] = identity
    return AnnotationPlan(place=spec["place"], identity=identity, spec=spec, gpus=model.gpus)


def find_finished(folder: RunFolder, plan: AnnotationPlan) -> dict[str, Any] | None:
    """The counts of an earlier run of the same request whose documents all have a label; else None."""
    manifest = find_manifest(folder.annotations(plan.place))
    facts = manifest.facts if manifest else {}
    is_whole = facts.get("asked") == plan.identity and facts["labelled"] == facts["documents"]
    return {"place": plan.place, **facts} if is_whole else None


def origin_to_json(origin: Origin) -> dict[str, Any]:
    return asdict(origin)


def origin_from_json(values: dict[str, Any]) -> Origin:
    return Origin(
        rubric=Rubric(**values["rubric"]),
        model=values["model"],
        model_identity=values["model_identity"],
        sampling=Sampling(**values["sampling"]),
    )

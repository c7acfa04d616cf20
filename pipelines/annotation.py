"""A request for annotation: which documents a language model rates, by which rubric, and where the model is.

Invariant: the identity of what is written counts the rubric's wording, the model, its seed and temperature; not how
many documents are asked for, nor where the model runs. So a larger sample pays for what it adds, and no key or address
is part of a label. The key itself is never held: only the name of the variable that it is in.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from classifiers.annotation.asking import Sampling
from classifiers.annotation.labels import Origin
from classifiers.annotation.offline import OfflineConfig, identify_model
from classifiers.annotation.rubric import Rubric
from classifiers.annotation.server import Constraint, ServerConfig, check_url, choose_constraint, find_served_model
from mixtures.strata import SampleConfig, Share
from pipelines.rubrics import load_rubric
from pipelines.run_folder import RunFolder, require_step
from storage.errors import InputError
from storage.identity import fingerprint
from storage.manifests import find_manifest, read_manifest

DEFAULT_RUBRIC = "educational_direct_en"
SHORT_IDENTITY = 12


@dataclass(frozen=True, kw_only=True)
class AnnotationRequest:
    """What is asked for. With `server` (an address that ends in /v1) `model` is a name there, else a folder; None is
    the only model that the server has. `key_variable` names the environment variable with the server's key."""

    out: str = "runs/default"
    rubric: str = DEFAULT_RUBRIC
    server: str | None = None
    model: str | None = None
    key_variable: str | None = None
    sample: int = 1000
    most_per_stratum: int | None = None
    share: Share = "proportional"
    where: str | None = None
    dropped: bool = False
    seed: int = 0
    temperature: float = 0.0
    constraint: Constraint | Literal["auto"] = "auto"
    concurrency: int = 64
    timeout_seconds: float = 120.0
    tensor_parallel: int = 1
    max_tokens: int | None = None
    dtype: str = "auto"
    ray_address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.server is None and self.model is None:
            raise InputError(
                "no language model is named",
                hint="name a server with `--server http://localhost:8000/v1`, or a model folder with `--model PATH`",
            )
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature:g}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class AnnotationPlan:
    """A request with everything looked up: where the labels go, and what the job is told."""

    place: str
    identity: str
    spec: dict[str, Any]
    gpus: int


def read_key(variable: str | None) -> str | None:
    """The key in that variable. Raises InputError where it is named but not set."""
    if variable is None:
        return None
    if key := os.environ.get(variable, "").strip():
        return key
    raise InputError(
        f"the environment variable `{variable}` is not set",
        hint=f"`export {variable}=…` where this is started; on a cluster, on the nodes of it",
    )


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
    server, offline, model, model_identity = _model(request)
    origin = Origin(
        rubric=rubric,
        model=model,
        model_identity=model_identity,
        sampling=Sampling(temperature=request.temperature, seed=request.seed),
    )
    spec = {
        "place": f"{rubric.name}-{origin.identity()[:SHORT_IDENTITY]}",
        "policy": judged["policy"],
        "sample": asdict(sample),
        "origin": origin_to_json(origin),
        "server": server and asdict(server),
        "offline": offline and asdict(offline),
        "key_variable": request.key_variable if server else None,
    }
    catalogue = read_manifest(folder.catalogue).identity
    identity = fingerprint({"annotate": origin.identity(), "sample": sample, "catalogue": catalogue})
    gpus = request.tensor_parallel if offline else 0
    return AnnotationPlan(place=spec["place"], identity=identity, spec={**spec, "identity": identity}, gpus=gpus)


def find_finished(folder: RunFolder, plan: AnnotationPlan) -> dict[str, Any] | None:
    """The counts of an earlier run of the same request whose documents all have a label; else None."""
    manifest = find_manifest(folder.annotations(plan.place))
    facts = manifest.facts if manifest else {}
    is_whole = facts.get("asked") == plan.identity and facts["labelled"] == facts["documents"]
    return {"place": plan.place, **facts} if is_whole else None


def _model(request: AnnotationRequest) -> tuple[ServerConfig | None, OfflineConfig | None, str, str]:
    """How the model is reached, one way or the other; its name, and what stands for it in an identity."""
    if request.server is None:
        assert request.model is not None, "refused before"
        path = str(Path(request.model).expanduser().absolute())
        offline = OfflineConfig(
            model=path, tensor_parallel=request.tensor_parallel, max_tokens=request.max_tokens, dtype=request.dtype
        )
        return None, offline, Path(path).name, identify_model(path)
    check_url(request.server)
    key = read_key(request.key_variable)
    name = find_served_model(request.server, key, request.model)
    asked = request.constraint
    server = ServerConfig(
        url=request.server,
        model=name,
        constraint=choose_constraint(request.server, key) if asked == "auto" else asked,
        concurrency=request.concurrency,
        timeout_seconds=request.timeout_seconds,
    )
    return server, None, name, fingerprint({"served": name})


def origin_to_json(origin: Origin) -> dict[str, Any]:
    return asdict(origin)


def origin_from_json(values: dict[str, Any]) -> Origin:
    return Origin(
        rubric=Rubric(**values["rubric"]),
        model=values["model"],
        model_identity=values["model_identity"],
        sampling=Sampling(**values["sampling"]),
    )

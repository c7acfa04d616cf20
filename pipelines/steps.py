"""The steps of the path: for each, the job that does it, what the job is told, and the identity of its result.

An identity is made of configuration, code versions and the identities of the steps before, never of times or worker
counts, so a step whose identity stands in its record needs no job. Inside a job, parts are found again one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mixtures.licences import load_judging
from mixtures.middle import identify_choice
from mixtures.policy import Policy, load_policy
from mixtures.recipe import Recipe, load_recipe, policy_folder
from mixtures.withheld import identify_withheld
from pipelines.annotated import identify_labels, is_annotation
from pipelines.contamination import benchmark_stage, contamination_spec
from pipelines.dedup.spans.parameters import spans_config
from pipelines.raw_inputs import bucket_sources_of, inputs_of, labelled_sources, reading_of
from pipelines.removal import read_removals
from pipelines.request import ROOT, RunRequest
from pipelines.run_folder import RunFolder, require_step
from pipelines.scorers import scorers_of
from pipelines.search import encoder_stage, search_of
from pipelines.stages import (
    MEASURING_OPTIONS,
    cuts_spans,
    losses_stage,
    measuring_stages,
    own_rewrites,
    rewriting_stages,
)
from pipelines.training_stages import FIRST, TrainingStage, stage_named, training_stages
from storage.errors import InputError
from storage.identity import fingerprint, hash_file
from storage.manifests import MANIFEST
from tokenizer.vocabulary import tokenizer_files

CODE_VERSIONS = {
    "ingest": 1, "rewrite": 1, "spans": 1, "measure": 1, "deduplicate": 2, "embed": 1, "score": 2,
    "classify": 1, "fluency": 1, "judge": 6, "vocabulary": 1,
    "tokenize": 1, "plan": 2, "mix": 2, "train": 1, "report": 2,
}  # fmt: skip
SEARCHED = ("pairs", "copies", "urls", "semantic", "crowds", "members")


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """One step, ready to submit. `cpus` are those of one part; `whole_node` asks for all of a node's cores."""

    job: str
    spec: dict[str, Any]
    identity: str
    cpus: float = 1.0
    wants_gpu: bool = False
    whole_node: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a step is planned, what of it must exist for its record to count, and its line on the terminal."""

    plan: Callable[[RunRequest, RunFolder], StepPlan]
    outputs: Callable[[RunFolder, Mapping[str, Any]], list[Path]]
    summarise: Callable[[Mapping[str, Any]], str]


def outputs_exist(folder: RunFolder, step: str, result: Mapping[str, Any]) -> bool:
    """Whether everything that a step with that result wrote last is still there."""
    return all(path.exists() for path in step_named(step).outputs(folder, result))


def recipe_of(request: RunRequest) -> Recipe:
    return load_recipe(request.recipe)


def policy_of(request: RunRequest) -> Policy:
    """The request's policy, else the recipe's (its path counts from the recipe's file)."""
    if request.policy:
        return load_policy(request.policy)
    recipe = recipe_of(request)
    return load_policy(recipe.policy, beside=policy_folder(recipe))


def _plan(step: str, job: str, spec: dict[str, Any], basis: Mapping[str, Any], **resources: Any) -> StepPlan:
    identity = fingerprint({"step": step, "version": CODE_VERSIONS[step], **basis})
    return StepPlan(job=job, spec={**spec, "identity": identity}, identity=identity, **resources)


def plan_ingest(request: RunRequest, folder: RunFolder) -> StepPlan:
    inputs, config = inputs_of(request), reading_of(request)
    raw = [dataclasses.asdict(item) for item in inputs]
    times = [_modified(item.path) for item in inputs]
    spec = {"inputs": raw, "config": dataclasses.asdict(config)}
    removed = sorted(read_removals(folder))
    return _plan("ingest", "ingest", spec, {"config": config, "inputs": raw, "times": times, "removed": removed})


def _modified(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def is_asked(step: str, request: RunRequest) -> bool:
    """Whether the request's path has the step: some are there only for those who ask for them."""
    asked = {
        "rewrite": bool(own_rewrites(request.rewrite)),
        "spans": bool(request.repeated_spans or request.repeated_lines),
        "classify": bool(request.score),
        "fluency": bool(request.fluency_model),
    }
    return asked.get(step, True)


def plan_rewrite(request: RunRequest, folder: RunFolder) -> StepPlan:
    documents = require_step(folder, "ingest").result["identity"]
    rewrites = own_rewrites(request.rewrite)
    stages = [stage.identity() for stage in rewriting_stages(rewrites)]
    return _plan("rewrite", "rewrite", {"rewrite": list(rewrites)}, {"stages": stages, "documents": documents})


def plan_spans(request: RunRequest, folder: RunFolder) -> StepPlan:
    asked = {name: getattr(request, name) for name in ("repeated_spans", "repeated_lines")}
    config, cut = spans_config(**asked), cuts_spans(request.rewrite)
    basis: dict[str, Any] = {"asked": config.identity(), "cut": cut, "documents": _uncut_documents(request, folder)}
    if is_asked("rewrite", request):
        basis["rewrites"] = require_step(folder, "rewrite").result["rewrites"]
    return _plan("spans", "spans", {"asked": asked, "cut": cut}, basis)


def _uncut_documents(request: RunRequest, folder: RunFolder) -> str:
    """Identity of the documents that repeated spans are searched in."""
    step = "rewrite" if is_asked("rewrite", request) else "ingest"
    return str(require_step(folder, step).result["identity"])


def _documents_of(request: RunRequest, folder: RunFolder) -> str:
    """Identity of the documents that are measured: as the last step that was asked to change texts left them."""
    if is_asked("spans", request):
        return str(require_step(folder, "spans").result["identity"])
    return _uncut_documents(request, folder)


def measuring_options(request: RunRequest) -> dict[str, Any]:
    """What of the request decides the measuring stages."""
    return {name: getattr(request, name) for name in MEASURING_OPTIONS}


def plan_measure(request: RunRequest, folder: RunFolder) -> StepPlan:
    documents = _documents_of(request, folder)
    options, benchmarks = measuring_options(request), contamination_spec(request)
    found = benchmark_stage(benchmarks, folder.root) if benchmarks else None
    stages = [stage.identity() for stage in measuring_stages(**options, benchmarks=found)]
    spec = {"options": options, "benchmarks": benchmarks}
    return _plan("measure", "measure", spec, {"stages": stages, "documents": documents})


def plan_deduplicate(request: RunRequest, folder: RunFolder) -> StepPlan:
    settings = dataclasses.asdict(search_of(request, policy_of(request)))
    basis = {"settings": settings, "documents": _documents_of(request, folder)}
    if request.semantic is not None:
        basis["embeddings"] = require_step(folder, "embed").result["identity"]
    return _plan("deduplicate", "deduplicate", {"settings": settings}, basis, wants_gpu=request.sign_on == "gpu")


def plan_embed(request: RunRequest, folder: RunFolder) -> StepPlan:
    policy = policy_of(request)
    basis = {
        "stage": encoder_stage(request.encoder).identity(),
        "measured": require_step(folder, "measure").result["identity"],
        "gate": policy.identity(),
    }
    spec = {"policy": policy.path, "encoder": request.encoder}
    return _plan("embed", "embed", spec, basis, wants_gpu=True)


def check_labels(request: RunRequest) -> None:
    if not request.labels or Path(request.labels).is_file() or is_annotation(Path(request.labels)):
        return
    raise InputError(
        "there are no labels",
        at=request.labels,
        hint="give the path of a JSONL file, or a folder that `gristmill annotate` wrote",
    )


def plan_score(request: RunRequest, folder: RunFolder) -> StepPlan:
    check_labels(request)
    basis = {
        "embeddings": require_step(folder, "embed").result["identity"],
        "labels": identify_labels(Path(request.labels)) if request.labels else None,
        "copies": require_step(folder, "deduplicate").result["base"],
    }
    sources = {**labelled_sources(request), "bucket_sources": bucket_sources_of(request)}
    spec = {"labels": request.labels, "encoder": request.encoder, **sources}
    return _plan("score", "score", spec, {**basis, **sources})


def plan_classify(request: RunRequest, folder: RunFolder) -> StepPlan:
    policy = policy_of(request)
    ranked = sorted(request.bucket_sources)
    basis = {
        "stages": [scorer.stage().identity() for scorer in scorers_of(request.score)],
        "tellings": [[scorer.name, fingerprint(scorer.telling)] for scorer in scorers_of(request.score)],
        "measured": require_step(folder, "measure").result["identity"],
        "gate": policy.gate_identity(),
        "bucket_sources": ranked,
        "refit": request.refit,
    }
    spec = {
        "policy": policy.path,
        "score": list(request.score),
        "bucket_sources": ranked,
        "refit": request.refit,
    }
    return _plan("classify", "classify", spec, basis, wants_gpu=True)


def plan_fluency(request: RunRequest, folder: RunFolder) -> StepPlan:
    assert request.fluency_model is not None, "not wanted"
    policy = policy_of(request)
    basis = {
        "stage": losses_stage(request.fluency_model, request.fluency_tokenizer).identity(),
        "measured": require_step(folder, "measure").result["identity"],
        "gate": policy.identity(),
        "refit": request.refit,
    }
    spec = {
        "policy": policy.path,
        "model": request.fluency_model,
        "tokenizer": request.fluency_tokenizer,
        "refit": request.refit,
    }
    return _plan("fluency", "fluency", spec, basis, wants_gpu=True)


def plan_judge(request: RunRequest, folder: RunFolder) -> StepPlan:
    judging = {"policy": policy_of(request).path, "allow_licences": recipe_of(request).allow_licences}
    basis = {
        "policy": load_judging(judging).identity(),
        "measured": require_step(folder, "measure").result["identity"],
        "quality": require_step(folder, "score").result["identity"],
        "duplicates": require_step(folder, "deduplicate").identity,
        "refit": request.refit,
    }
    if is_asked("rewrite", request):
        basis["rewrites"] = require_step(folder, "rewrite").result["rewrites"]
    if is_asked("spans", request):
        basis["repeated"] = require_step(folder, "spans").result["repeated"]
    if request.score:
        basis["scores"] = require_step(folder, "classify").result["identity"]
    if request.fluency_model:
        basis["fluency"] = require_step(folder, "fluency").result["identity"]
    spec = {
        "judging": judging,
        "scores": bool(request.score),
        "fluency": request.fluency_model is not None,
        "refit": request.refit,
    }
    return _plan("judge", "judge", spec, basis)


def plan_vocabulary(request: RunRequest, folder: RunFolder) -> StepPlan:
    recipe = recipe_of(request)
    judged = require_step(folder, "judge").result
    settings = recipe.tokenizer.model_dump(mode="json")
    loaded = policy_folder(recipe) / recipe.tokenizer.load if recipe.tokenizer.load else None
    chosen = identify_choice(recipe)
    basis = {
        **({"fill_in_middle": chosen} if chosen else {}),
        "tokenizer": settings,
        "files": {file.name: hash_file(file) for file in tokenizer_files(loaded)} if loaded else None,
        "sources": [source.where for source in recipe.sources] if recipe.tokenizer.of_documents else [],
        "seed": recipe.seed if recipe.tokenizer.of_documents else 0,
        "judged": judged["identity"] if recipe.tokenizer.of_documents else None,
    }
    return _plan("vocabulary", "vocabulary", {"recipe": recipe.path, "policy": judged["policy"]}, basis)


def _mixing(request: RunRequest, folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    judged, made = require_step(folder, "judge").result, require_step(folder, "vocabulary").result
    spec = {"recipe": recipe_of(request).path, "policy": judged["policy"], "tokenizer": made["tokenizer"]}
    return spec, {"judged": judged["identity"], "tokenizer": made["tokenizer"]}


def plan_tokenize(request: RunRequest, folder: RunFolder) -> StepPlan:
    spec, basis = _mixing(request, folder)
    return _plan("tokenize", "tokenize", spec, basis)


def plan_plan(request: RunRequest, folder: RunFolder) -> StepPlan:
    return _plan_mixture("plan", request, folder, write=False)


def plan_mix(request: RunRequest, folder: RunFolder) -> StepPlan:
    return _plan_mixture("mix", request, folder, write=True)


def _plan_mixture(step: str, request: RunRequest, folder: RunFolder, *, write: bool) -> StepPlan:
    spec, basis = _mixing(request, folder)
    stored = require_step(folder, "tokenize").result["identity"]
    recipe = recipe_of(request)
    basis = {**basis, "recipe": recipe.identity(), **identify_withheld(recipe), "stored": stored}
    return _plan(step, "mix", {**spec, "write": write}, basis)


def preset_file(name: str) -> Path:
    """A model's settings by path, or by the name of a shipped one. Raises InputError when there is none."""
    shipped = ROOT / "trainer" / "presets"
    for path in (Path(name), shipped / f"{name}.yaml"):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
    raise InputError(
        f"there is no preset `{name}`", at=str(Path(name).absolute()), hint=f"name a YAML file, or one of {names}"
    )


def _preset_steps(preset: Path) -> int | None:
    """How long the preset trains, for the progress bar; None where the mixture decides."""
    values = yaml.safe_load(preset.read_text(encoding="utf-8"))
    steps = values.get("training", {}).get("steps") if isinstance(values, dict) else None
    return steps if isinstance(steps, int) else None


def plan_train(request: RunRequest, folder: RunFolder) -> StepPlan:
    """The only stage, or the first."""
    return _plan_stage(request, folder, training_stages(require_step(folder, "mix").result)[0])


def _plan_later_stage(name: str) -> Callable[[RunRequest, RunFolder], StepPlan]:
    def plan(request: RunRequest, folder: RunFolder) -> StepPlan:
        return _plan_stage(request, folder, stage_named(require_step(folder, "mix").result, name))

    return plan


def _plan_stage(request: RunRequest, folder: RunFolder, stage: TrainingStage) -> StepPlan:
    preset, options = preset_file(request.preset), stage.options(recipe_of(request), request.preset)
    basis: dict[str, Any] = {"mixture": stage.mixture, "preset": hash_file(preset), "steps": request.train_steps}
    spec: dict[str, Any] = {"mixture": stage.mixture, "preset": request.preset, "steps": request.train_steps}
    spec["processes"] = request.train_processes
    expected = request.train_steps or _preset_steps(preset)
    if options:
        basis["options"], spec["options"] = options, options
    if stage.parent:
        parent = require_step(folder, stage.parent).result["checkpoints"]
        basis["parent"], spec["parent"], expected = parent, parent, request.train_steps
    return _plan("train", "train", {**spec, "expected_steps": expected}, basis, whole_node=True, wants_gpu=True)


def step_named(name: str) -> Step:
    """A step of the path, or one of its later stages of training, `train-NAME`."""
    if name in STEPS:
        return STEPS[name]
    return dataclasses.replace(STEPS[FIRST], plan=_plan_later_stage(name.removeprefix(f"{FIRST}-")))


def plan_report(request: RunRequest, folder: RunFolder) -> StepPlan:
    done = {step: require_step(folder, step).identity for step in STEPS if step != "report" and is_asked(step, request)}
    later = [stage.step for stage in training_stages(require_step(folder, "mix").result)[1:]]
    done |= {step: require_step(folder, step).identity for step in later}
    return _plan("report", "report", {}, {**done, "duplicate_alarm": request.duplicate_alarm})


def _dataset(*places: str) -> Callable[[RunFolder, Mapping[str, Any]], list[Path]]:
    return lambda folder, result: [folder.root / place / MANIFEST for place in places]


def _documents(result: Mapping[str, Any]) -> str:
    return f"{result['documents']:,} documents"


def _spans(result: Mapping[str, Any]) -> str:
    told = [
        f"{name.replace('_', ' ')}: {found['bytes']:,} bytes in {found['documents']:,} documents"
        for name, found in result["found"].items()
    ]
    return ", ".join([*told, *([f"{result['removed_bytes']:,} bytes removed"] if result["cut"] else [])])


STEPS: dict[str, Step] = {
    "ingest": Step(
        plan=plan_ingest,
        outputs=_dataset("documents"),
        summarise=lambda r: (
            f"{r['documents']:,} documents from {r['records']:,} records, {sum(r['failures'].values()):,} failed"
        ),
    ),
    "rewrite": Step(
        plan=plan_rewrite,
        outputs=_dataset("rewritten", "attributes/rewrites"),
        summarise=lambda r: ", ".join(f"{name} {count:,} documents" for name, count in r["rewritten"].items()),
    ),
    "spans": Step(
        plan=plan_spans,
        outputs=lambda folder, r: [folder.repeated / MANIFEST, *([folder.cut / MANIFEST] if r["cut"] else [])],
        summarise=_spans,
    ),
    "measure": Step(plan=plan_measure, outputs=_dataset("attributes/measure"), summarise=_documents),
    "embed": Step(
        plan=plan_embed,
        outputs=_dataset("attributes/embeddings"),
        summarise=lambda r: f"{r['admitted']:,} of {r['documents']:,} documents passed the gate",
    ),
    "deduplicate": Step(
        plan=plan_deduplicate,
        outputs=_dataset(*(f"duplicates/{kind}" for kind in SEARCHED)),
        summarise=lambda r: (
            f"{r['pairs']:,} near-duplicate pairs, {r['copies']:,} copies; {r['added']:,} documents compared"
            + (f", all of them because {r['anew']}" if r["anew"] else "")
        ),
    ),
    "score": Step(plan=plan_score, outputs=_dataset("attributes/quality"), summarise=lambda r: str(r["summary"])),
    "classify": Step(
        plan=plan_classify,
        outputs=lambda folder, r: [
            folder.scores / MANIFEST,
            *(folder.classified(one["stage"]) / MANIFEST for one in r["scorers"]),
        ],
        summarise=lambda r: (
            f"{r['admitted']:,} of {r['documents']:,} documents scored: {', '.join(s['name'] for s in r['scorers'])}"
        ),
    ),
    "fluency": Step(
        plan=plan_fluency,
        outputs=_dataset("attributes/losses", "attributes/fluency"),
        summarise=lambda r: f"{r['scored']:,} of {r['documents']:,} documents have a loss",
    ),
    "judge": Step(
        plan=plan_judge,
        outputs=lambda folder, r: [
            folder.decisions(r["policy"]) / "verdicts" / MANIFEST,
            folder.decisions(r["policy"]) / "reasons" / MANIFEST,
            folder.catalogue / MANIFEST,
            folder.hosts / MANIFEST,
        ],
        summarise=lambda r: f"{r['kept']:,} kept, {r['dropped']:,} dropped",
    ),
    "vocabulary": Step(
        plan=plan_vocabulary,
        outputs=lambda folder, r: [folder.vocabulary(r["tokenizer"]) / "vocabulary.json"],
        summarise=lambda r: f"{r['vocabulary']['size']:,} entries",
    ),
    "tokenize": Step(
        plan=plan_tokenize,
        outputs=lambda folder, r: [folder.tokens(r["tokenizer"]) / MANIFEST],
        summarise=lambda r: f"{r['tokens']:,} tokens of {r['documents']:,} documents",
    ),
    "plan": Step(
        plan=plan_plan, outputs=lambda folder, r: [], summarise=lambda r: f"{r['tokens']:,} tokens to train on"
    ),
    "mix": Step(
        plan=plan_mix,
        outputs=lambda folder, r: [
            folder.mixture(mixture) / "blend.json"
            for mixture in (r["mixture"], *(stage["mixture"] for stage in r.get("stages", ())))
        ],
        summarise=lambda r: (
            f"{r['tokens']:,} tokens as indices over the store"
            + (f", the first of {len(r['stages'])} stages" if "stages" in r else "")
        ),
    ),
    "train": Step(
        plan=plan_train,
        outputs=lambda folder, r: [folder.checkpoints(r["checkpoints"]) / "evaluation.json"],
        summarise=lambda r: ", ".join(
            f"{name} {row['bits_per_byte']:.3f} bits a byte" for name, row in r["sources"].items()
        ),
    ),
    "report": Step(plan=plan_report, outputs=lambda folder, r: [folder.report], summarise=lambda r: str(r["report"])),
}

"""An ablation: one small model on several recipes or policies at equal tokens, measured on the same held-out texts.

Held-out texts are chosen once, before any arm: documents that a user names, else of every source what the rules of
all arms pass together, so that no arm is measured on what it would have dropped. They, and whatever the run's search
found to equal or resemble one of them, are withheld from every arm's training. Without names this favours the
strictest arm a little (it is measured on what it likes); texts of other origin, named by `--measure-on`, favour none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from mixtures.policy import Policy, Rule
from mixtures.recipe import Recipe, load_recipe
from mixtures.variant import read_blend
from mixtures.withheld import read_withheld, write_withheld
from mixtures.wording import say_count
from pipelines.experiments import Arm, Experiment, Values, is_matrix, list_experiments, load_matrix
from pipelines.request import RunRequest
from pipelines.run_folder import RunFolder
from pipelines.steps import policy_of, preset_file
from pipelines.studies import POLICY_FILE, Proxy, Study, prepare_study, training_of, write_yaml
from storage.errors import InputError, RecipeError
from storage.identity import fingerprint, hash_file
from storage.manifests import Dataset

SELECTION, PLAN = "selection.parquet", "plan.json"
SEEDS, TOKENS, PRESET = 3, 1_000_000, "tiny"
SHORTFALL = 0.001
"""Of the tokens asked for: an arm that lacks more is refused."""
AMOUNTS = ("weight", "tokens", "max_share", "max_epochs", "repeat", "order", "fill_in_middle")
"""What a source's held-out texts do not depend on."""
_FIRST_SEED = 1


@dataclass(frozen=True, kw_only=True)
class AblationRequest:
    """What is asked for.

    `arms`: recipes and policies, or one matrix; `seeds`: models of each; `tokens`: what each learns from; `heldout`:
    tokens of each held-out text; `measure_on`: their names and conditions (default: each source's own); `preset`: the
    model. What is None is the matrix's, else SEEDS, TOKENS and PRESET.
    """

    arms: tuple[str, ...]
    out: str = "runs/default"
    seeds: int | None = None
    tokens: int | None = None
    heldout: int = 20_000
    measure_on: Mapping[str, str] = field(default_factory=dict)
    preset: str | None = None
    ray_address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", tuple(self.arms))
        for name in ("seeds", "tokens", "heldout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name} is {value}; it must be above 0")
        if len(self.arms) < 2 and not (self.arms and is_matrix(self.arms[0])):
            raise InputError("there is one arm, and nothing to compare it with", hint="name two or more, or a matrix")


@dataclass(frozen=True, kw_only=True)
class AblationPlan(Study):
    """A study with what it compares; `steps` are those of the preset as it is."""

    request: AblationRequest
    name: str
    seeds: int
    tokens: int
    preset: str
    measure_on: Mapping[str, str]
    experiments: tuple[Experiment, ...]

    @property
    def arms(self) -> list[Arm]:
        """The data of all experiments, each once; the first is the one that others are compared with."""
        return list({experiment.arm.name: experiment.arm for experiment in self.experiments}.values())


def plan_ablation(request: AblationRequest, run: RunRequest, folder: RunFolder) -> AblationPlan:
    """Prepare the study. Raises a CurationError for what is not there or cannot be."""
    name, combinations, told, beside = _read_arms(request)
    own = load_recipe(run.recipe)
    experiments = list_experiments(combinations, own, policy_of(run), beside)
    for experiment in experiments:
        _check_recipe(experiment.arm.recipe)
    settled = {key: getattr(request, key) or told.get(key) for key in ("seeds", "tokens", "preset", "measure_on")}
    seeds, tokens, preset = settled["seeds"] or SEEDS, settled["tokens"] or TOKENS, settled["preset"] or PRESET
    measure_on = dict(settled["measure_on"] or {})
    arms = list({experiment.arm.name: experiment.arm for experiment in experiments}.values())
    asked = {
        "experiments": [[experiment.name, experiment.arm.identity(), experiment.fields] for experiment in experiments],
        "seeds": seeds, "tokens": tokens, "heldout": request.heldout, "measure_on": measure_on,
    }  # fmt: skip
    study = prepare_study(
        "ablation",
        asked,
        run=run,
        folder=folder,
        tokens=tokens,
        preset=preset,
        policy=heldout_policy(arms, measure_on),
        recipe=lambda tokenizer, length: heldout_recipe(arms, measure_on, request.heldout, tokenizer, length),
    )
    return AblationPlan(
        request=request, name=name, seeds=seeds, tokens=tokens, preset=preset, measure_on=measure_on,
        experiments=tuple(experiments), **vars(study),
    )  # fmt: skip


def _read_arms(request: AblationRequest) -> tuple[str, list[Values], dict[str, Any], Path]:
    """The comparison's name, its experiments by axis, what a matrix says beside, and where its paths count from."""
    if len(request.arms) == 1:
        matrix = load_matrix(request.arms[0])
        return matrix.name, matrix.combinations(), matrix.model_dump(), matrix.folder
    if any(is_matrix(arm) for arm in request.arms):
        raise InputError("a matrix stands alone: it names its own data", hint="put the others under its axis `data`")
    return "ablation", [{"data": arm} for arm in request.arms], {}, Path()


def _check_recipe(recipe: Recipe) -> None:
    """Raises RecipeError for one that means several trainings, or amounts that cannot be scaled to other tokens."""
    if recipe.stages is not None:
        raise RecipeError(
            "a recipe with stages is several trainings, and an ablation is of one",
            at=recipe.at("stages"),
            hint="write the stage that you want to compare as a recipe of its own",
        )
    if any(source.tokens for source in recipe.sources) and any(source.weight for source in recipe.sources):
        raise RecipeError(
            "some sources have `tokens` and others `weight`: nobody knows their shares of other amounts",
            at=recipe.at("sources"),
            hint="give all of them weights",
        )


def heldout_policy(arms: Sequence[Arm], measure_on: Mapping[str, str]) -> dict[str, Any]:
    """Who may be measured on: what is named, else what the rules of all arms pass; copies are measured on once."""
    if measure_on:
        named = " OR ".join(f"({where})" for where in measure_on.values())
        rules = [{"rule": "not_measured_on", "when": f"NOT coalesce({named}, false)"}]
    else:
        rules = _all_rules([arm.policy for arm in arms])
    copies = [{"rule": f"{kind}_copy", "duplicates": kind} for kind in ("exact", "near")]
    policy: dict[str, Any] = {"format_version": 1, "name": "heldout", "rules": [*rules, *copies]}
    ensembles = {arm.policy.identity(): arm.policy.ensemble for arm in arms if arm.policy.ensemble}
    if ensembles and not measure_on:
        policy["ensemble"] = dict(next(iter(ensembles.values())) or {})
    return policy


def _all_rules(policies: Sequence[Policy]) -> list[dict[str, Any]]:
    """Every rule of every policy once, but for those on duplicates; one whose name is taken gets a number."""
    found: list[dict[str, Any]] = []
    for rule in (rule for policy in policies for rule in policy.rules if rule.duplicates is None):
        values = rule.model_dump(mode="json", exclude_defaults=True)
        if not any(_without_name(values) == _without_name(other) for other in found):
            found.append({**values, "rule": _free_name(rule, {other["rule"] for other in found})})
    return found


def _without_name(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in rule.items() if key != "rule"}


def _free_name(rule: Rule, taken: set[str]) -> str:
    names = (rule.rule, *(f"{rule.rule}_{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def heldout_recipe(
    arms: Sequence[Arm], measure_on: Mapping[str, str], tokens: int, tokenizer: str, length: int
) -> dict[str, Any]:
    """The recipe whose held-out sets all models are measured on: the named texts, or all arms' sources."""
    sources: dict[str, dict[str, Any]] = {name: {"name": name, "where": where} for name, where in measure_on.items()}
    for source in [] if measure_on else [source for arm in arms for source in arm.recipe.sources]:
        values = source.model_dump(mode="json", exclude_unset=True, exclude=set(AMOUNTS))
        sources.setdefault(source.name, values)
    return {
        "format_version": 1,
        "name": "heldout",
        "seed": arms[0].recipe.seed,
        "sequence_length": length,
        "policy": POLICY_FILE,
        "tokenizer": {"load": tokenizer},
        "heldout": {"tokens": tokens},
        "sources": list(sources.values()),
    }


def list_withheld(verdicts: Dataset, mixture: Path, *, everything: bool) -> list[bytes]:
    """The documents that no arm may learn from: those held out, and all of their groups of duplicates.

    `everything`: also what the held-out mixture's sources hold beyond their held-out sets.
    """
    selection = pq.read_table(mixture / SELECTION, columns=["doc_id", "split"])
    chosen = selection if everything else selection.filter(pc.equal(selection["split"], "heldout"))
    measured = chosen["doc_id"].cast(pa.binary()).combine_chunks()
    parts = [verdicts.read(part, ["doc_id", "cluster_id"]) for part in verdicts.parts]
    judged = pa.concat_tables(parts)
    ids, groups = (judged[name].cast(pa.binary()) for name in ("doc_id", "cluster_id"))
    theirs = groups.filter(pc.is_in(ids, measured)).combine_chunks()
    found: list[bytes] = ids.filter(pc.is_in(groups, theirs)).to_pylist()
    return found


def plan_arm(plan: AblationPlan, arm: Arm, run: RunRequest, measured: Sequence[bytes]) -> Study:
    """The study that mixes one arm's data, within the ablation's folder: without what is `measured`, nor its own."""
    withheld = write_withheld(plan.folder.home, [*measured, *read_withheld(arm.recipe)])
    return prepare_study(
        f"{plan.folder.place}/arms",
        {"arm": arm.identity(), "tokens": plan.tokens, "withheld": withheld.name},
        run=run,
        folder=RunFolder(plan.folder.root),
        tokens=plan.tokens,
        preset=plan.preset,
        policy={"format_version": 1, **arm.policy.model_dump(mode="json", exclude_defaults=True)},
        recipe=lambda tokenizer, length: arm_recipe(
            arm.recipe, plan.tokens, f"../../{withheld.name}", tokenizer, length
        ),
    )


def arm_recipe(recipe: Recipe, tokens: int, withheld: str, tokenizer: str, length: int) -> dict[str, Any]:
    """The arm's recipe for so many tokens, without held-out sets of its own; `tokens` of sources count as shares."""
    values = recipe.model_dump(mode="json", exclude_unset=True, exclude={"epochs", "heldout", "description", "inputs"})
    for source in values["sources"]:
        source.pop("fill_in_middle", None)
        if amount := source.pop("tokens", None):
            source["weight"] = float(amount)
    return {
        **values,
        "tokens": tokens,
        "sequence_length": length,
        "policy": POLICY_FILE,
        "tokenizer": {"load": tokenizer},
        "heldout": {"tokens": 0},
        "withheld": withheld,
    }


def describe_arm(plan: AblationPlan, arm: Arm, mixture: Path, judged: Mapping[str, Any]) -> dict[str, Any]:
    """What an arm has and gives. Raises RecipeError where its documents are too few for the tokens."""
    given = yaml.safe_load((mixture / PLAN).read_bytes())
    if given["tokens_given"] < (1 - SHORTFALL) * plan.tokens:
        raise RecipeError(
            f"`{arm.name}` has {say_count(given['tokens_given'])} tokens within `max_epochs`; "
            f"each model learns from {say_count(plan.tokens)}",
            at=arm.recipe.at("sources"),
            hint="lower `--tokens`, or raise `max_epochs` of its sources",
        )
    sources = given["sources"]
    return {
        "name": arm.name,
        "recipe": arm.recipe.name,
        "policy": arm.policy.name,
        "kept": judged["kept"],
        "dropped": judged["dropped"],
        "rules": dict(sorted(judged["decided"].items(), key=lambda item: (-item[1], item[0]))),
        "documents": sum(source["documents"] for source in sources),
        "tokens_available": sum(source["tokens_available"] for source in sources),
        "tokens_given": given["tokens_given"],
        "epochs": max(source["highest_epochs"] for source in sources),
        "mixture": given["mixture"],
        "warnings": given["warnings"],
    }


def proxies_of(plan: AblationPlan, measured: str, mixtures: Mapping[str, str]) -> list[Proxy]:
    """The models to train, one seed of all experiments after the other: an interrupted study has whole seeds.

    A model's folder is named by all that decides it, so another ablation with the same experiment finds it there.
    """
    return [
        _proxy(plan, experiment, seed, measured, mixtures[experiment.arm.name])
        for seed in range(_FIRST_SEED, _FIRST_SEED + plan.seeds)
        for experiment in plan.experiments
    ]


def _proxy(plan: AblationPlan, experiment: Experiment, seed: int, measured: str, mixture: str) -> Proxy:
    preset = write_preset(plan, experiment)
    steps = steps_of(preset, plan.tokens)
    decides = {"mixture": mixture, "measured": measured, "preset": hash_file(preset), "steps": steps, "seed": seed}
    return Proxy(
        name=experiment.slug,
        weights=None,
        seed=seed,
        mixture=mixture,
        preset=str(preset),
        steps=steps,
        folder=f"ablation/models/{fingerprint(decides)}",
    )


def write_preset(plan: AblationPlan, experiment: Experiment) -> Path:
    """The experiment's preset: the study's own, or one with the experiment's fields laid over it."""
    base = preset_file(plan.preset)
    if not experiment.fields:
        return base
    values = yaml.safe_load(base.read_bytes())
    for axis, value in experiment.fields.items():
        section, _, name = axis.partition(".")
        values[section][name] = value
    path = plan.folder.home / "presets" / f"{experiment.slug}.yaml"
    write_yaml(path, values)
    return path


def steps_of(preset: Path, tokens: int) -> int:
    """Steps that come nearest to the tokens from below. Raises InputError where that is none."""
    training = training_of(preset)
    steps = tokens // (training["sequence_length"] * training["global_batch"])
    if not steps:
        raise InputError(f"{tokens:,} tokens are less than one step of `{preset.stem}`", hint="raise --tokens")
    return steps


def describe_heldout(mixture: Path) -> dict[str, dict[str, int]]:
    """Tokens and bytes of each held-out text."""
    blend = read_blend(mixture)
    return {name: {"tokens": row["tokens"], "bytes": row["bytes"]} for name, row in blend["heldout"].items()}


def asked_of(plan: AblationPlan) -> dict[str, Any]:
    """What the result says it answers."""
    told = {
        name: value for name, value in asdict(plan.request).items() if name not in ("out", "ray_address", "workers")
    }
    settled = {"seeds": plan.seeds, "tokens": plan.tokens, "preset": plan.preset, "measure_on": dict(plan.measure_on)}
    return {**told, **settled}

"""A request to fit a classifier: which labelled texts, which settings, and where the model goes.

Invariant: the identity of a model counts the recipe, the texts that it can choose from, the settings and the base
model's files; not where it is written nor what trains it. A folder that holds the model of this identity is finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from glob import glob
from pathlib import Path
from typing import Any, Literal

from classifiers.annotation.rubric import Rubric
from classifiers.distillation.settings import EncoderSettings
from classifiers.encoders.calibration import FACTS
from classifiers.encoders.models import DEFAULT_MODEL, find_model
from classifiers.fasttext.stop_words import default_stop_words, read_stop_words
from classifiers.fasttext.training import read_settings
from mixtures.labelling import Choice, Graded, Labelling, load_labelling
from mixtures.origins import FileOrigin, Origin, RunOrigin
from mixtures.yaml_files import FORMAT_VERSION, SUFFIXES
from pipelines.annotated import is_annotation
from pipelines.run_folder import RunFolder, require_step
from storage.errors import InputError
from storage.identity import fingerprint, hash_file
from storage.manifests import MANIFEST, open_dataset, read_manifest

Kind = Literal["fasttext", "encoder"]
WORKSHOP = "fit"
"""The folder below the model's where jobs, logs and checkpoints lie while it is made."""
TABLES = (".jsonl", ".json", ".gz", ".zst", ".bz2", ".parquet")


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """`data`: a labelling recipe, a folder of annotations, or a labelled JSONL or Parquet file. `given`: settings that
    differ from the preset's or the defaults. `rated_by`: of annotations, the expected value or the likeliest digit."""

    kind: Kind
    data: str
    out: str
    given: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "dclm_en"
    stop_words: tuple[str, ...] = ()
    base: str = DEFAULT_MODEL
    rated_by: Literal["score", "argmax"] = "score"
    most: int | None = None
    ray_address: str | None = None
    workers: int | None = None

    @property
    def folder(self) -> Path:
        return Path(self.out).expanduser().absolute()


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """A request with everything looked up: what the job is told, and what stands for the model."""

    identity: str
    spec: dict[str, Any]


def plan_fit(request: FitRequest) -> FitPlan:
    """Look up data, settings and base model. Raises a CurationError for what of them is not there or not right."""
    recipe, _ = read_data(request)
    if request.kind == "fasttext":
        made_of = {"settings": fasttext_settings(request), "stop_words": stop_words(request)}
    else:
        files = [hash_file(path) for path in find_model(request.base).paths]
        made_of = {"settings": encoder_settings(request), "base": files}
    inputs = [_stands_for(origin) for origin in open_origins(recipe)]
    told = {"recipe": recipe.identity(), "inputs": inputs, "most": request.most, "kind": request.kind}
    threads = {**asdict(made_of["settings"]), "threads": None, "batch_tokens": None}
    identity = fingerprint({"fit": 1, **made_of, "settings": threads, **told})
    return FitPlan(identity=identity, spec={**_with_whole_paths(request), "identity": identity})


def _with_whole_paths(request: FitRequest) -> dict[str, Any]:
    """The request for a job, which has another working directory."""
    base = Path(request.base).expanduser()
    return {
        **asdict(request),
        "given": dict(request.given),
        "data": str(Path(request.data).expanduser().absolute()),
        "out": str(request.folder),
        "stop_words": [str(Path(path).expanduser().absolute()) for path in request.stop_words],
        "base": str(base.absolute()) if base.is_dir() else request.base,
    }


def find_fitted(folder: Path, identity: str) -> dict[str, Any] | None:
    """The facts of the model in `folder` if it was made by this plan."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_bytes())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("plan") == identity else None


def fasttext_settings(request: FitRequest) -> Any:
    return read_settings(request.preset, **request.given)


def encoder_settings(request: FitRequest) -> EncoderSettings:
    given: dict[str, Any] = {name: _unlisted(value) for name, value in request.given.items() if value is not None}
    return EncoderSettings(**given)


def _unlisted(value: Any) -> Any:
    """JSON's list as the tuple that it was."""
    return tuple(value) if isinstance(value, list) else value


def stop_words(request: FitRequest) -> tuple[str, ...]:
    """The user's lists, or function words of jieba's dictionary; none for a preset that does not cut words."""
    if not fasttext_settings(request).words:
        return ()
    return read_stop_words([Path(path) for path in request.stop_words]) if request.stop_words else default_stop_words()


def read_data(request: FitRequest) -> tuple[Labelling, str]:
    """The labelling recipe that `data` is or stands for, and what its labels mean in a sentence."""
    path = Path(request.data).expanduser()
    if path.suffix in SUFFIXES and path.is_file():
        recipe = load_labelling(path)
        return recipe, recipe.description or f"labelling recipe `{recipe.name}`"
    if is_annotation(path):
        return _of_annotations(path.absolute(), request.rated_by)
    if path.suffix in TABLES and path.is_file():
        choice = Graded(files=(str(path.absolute()),), label="label")
        return _recipe("labels", choice), f"the column `label` of {path.name}"
    raise InputError(
        "there are no labelled texts here",
        at=request.data,
        hint="name a labelling recipe (YAML), a folder of `gristmill annotate`, or JSONL or Parquet with `text` and "
        "`label`",
    )


def _of_annotations(path: Path, rated_by: str) -> tuple[Labelling, str]:
    stage = open_dataset(path).manifest.stage
    rubric = Rubric(**stage["rubric"])
    choice = Graded(run=str(path.parent.parent), annotations=path.name, label=f"annotation.{rated_by}", dropped=True)
    meaning = (
        f"{rubric.highest} is {rubric.best}, {rubric.lowest} is {rubric.worst} (rubric {rubric.name}, wording "
        f"{rubric.version()[:12]}, rated by {stage['model']}, {rated_by})"
    )
    return _recipe("annotations", choice), meaning


def _recipe(name: str, choice: Graded) -> Labelling:
    return Labelling(format_version=FORMAT_VERSION, name=name, examples=(choice,))


def open_origins(recipe: Labelling) -> list[Origin]:
    """One for each choice of the recipe. Raises InputError and DatasetError for what is not there."""
    return [_open(choice, recipe) for choice, _, _ in recipe.choices()]


def _open(choice: Choice, recipe: Labelling) -> Origin:
    if choice.files is not None:
        return FileOrigin(files=_matching(choice.files, recipe), text=choice.text)
    assert choice.run is not None
    folder = RunFolder((recipe.folder / Path(choice.run).expanduser()).absolute())
    return RunOrigin(
        documents=folder.documents,
        catalogue=folder.catalogue,
        decisions=folder.decisions(require_step(folder, "judge").result["policy"]),
        annotations=folder.annotations(choice.annotations) if choice.annotations else None,
        kept_only=not choice.dropped,
    )


def _matching(patterns: tuple[str, ...], recipe: Labelling) -> tuple[Path, ...]:
    found: list[Path] = []
    for pattern in patterns:
        files = sorted(glob(str(recipe.folder / Path(pattern).expanduser()), recursive=True))
        if not files:
            raise InputError("no file matches", at=pattern, hint=f"paths count from the folder of {recipe.file}")
        found += map(Path, files)
    return tuple(found)


def _stands_for(origin: Origin) -> list[str]:
    if isinstance(origin, FileOrigin):
        return [hash_file(file) for file in origin.files]
    assert isinstance(origin, RunOrigin)
    folders = (origin.documents, origin.catalogue, origin.decisions / "verdicts", origin.annotations)
    return [read_manifest(folder).identity for folder in folders if folder and (folder / MANIFEST).exists()]


def request_from_spec(spec: Mapping[str, Any]) -> FitRequest:
    """What `plan_fit` put into a job's spec."""
    values = {name: value for name, value in spec.items() if name != "identity"}
    return FitRequest(**{**values, "stop_words": tuple(values["stop_words"])})


def summarise(facts: Mapping[str, Any]) -> str:
    """The figures of the held-out texts in a line."""
    heldout = facts["held_out"]
    names = ("quadratic_weighted_kappa", "rank_correlation", "mean_absolute_error", "macro_f1", "accuracy")
    figures = [f"{name.replace('_', ' ')} {heldout[name]:.3f}" for name in names if heldout.get(name) is not None]
    if (cut := heldout.get("at_threshold")) and cut["f1"] is not None:
        figures.append(f"F1 {cut['f1']:.3f} at {cut['threshold']:g}")
    return f"{heldout['examples']:,} texts held out: " + ", ".join(figures)

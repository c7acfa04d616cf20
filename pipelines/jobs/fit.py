"""The fitting job: choose labelled texts and train one classifier on them, on a GPU where one was reserved.

One task does it all, because choosing and training share the texts; what it has learned is on disk after each epoch.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from classifiers.distillation.encoder_model import fit_encoder
from classifiers.distillation.examples import Examples
from classifiers.encoders.calibration import FACTS
from classifiers.fasttext.training import fit_fasttext
from mixtures.examples import choose_examples
from pipelines.fitting import (
    FitRequest,
    encoder_settings,
    fasttext_settings,
    open_origins,
    read_data,
    request_from_spec,
    stop_words,
)
from pipelines.jobs.driver import PartTask, run_parts
from pipelines.jobs.job import Job
from storage.commit import write_atomically

POLL_SECONDS = 1.0
EPOCHS = "epochs.json"


def run(job: Job) -> dict[str, Any]:
    """Fit the model of the spec; returns its facts without the longer ones."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(job, ended), daemon=True)
    watcher.start()
    arguments = {"spec": job.spec, "workshop": str(job.run_folder), "cpus": job.cpus}
    try:
        task = PartTask(identity=job.spec["identity"], arguments=arguments)
        run_parts(job, [task], fit_model, total=1, stage="fit", retries=1).require_all()
    finally:
        ended.set()
        watcher.join()
    facts = json.loads((request_from_spec(job.spec).folder / FACTS).read_bytes())
    return {name: facts[name] for name in ("identity", "labels", "held_out")}


def fit_model(arguments: dict[str, Any]) -> dict[str, Any]:
    """Choose, train, measure, save; the plan's identity is sealed into the model's facts last."""
    request = request_from_spec(arguments["spec"])
    examples, origin = choose(request)
    if request.kind == "fasttext":
        words = stop_words(request)
        fit_fasttext(examples, fasttext_settings(request), request.folder, stop_words=words, origin=origin)
    else:
        _fit_encoder(request, examples, origin, arguments)
    path = request.folder / FACTS
    facts = {**json.loads(path.read_bytes()), "plan": arguments["spec"]["identity"]}
    write_atomically(path, (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
    return {"documents": len(examples)}


def choose(request: FitRequest) -> tuple[Examples, dict[str, Any]]:
    """The examples of a request, and what the card tells of them."""
    recipe, meaning = read_data(request)
    is_fasttext = request.kind == "fasttext"
    settings: Any = fasttext_settings(request) if is_fasttext else encoder_settings(request)
    most = settings.most_per_class if is_fasttext else request.most
    chosen = choose_examples(recipe, open_origins(recipe), most_per_label=most, seed=settings.seed)
    left_out = {name: chosen.facts[name] for name in ("copies", "under_two_labels", "over_the_most")}
    told = {"meaning": meaning, "recipe": recipe.identity(), "left_out": left_out, "labels": chosen.facts["labels"]}
    return Examples(chosen.table), told


def _fit_encoder(request: FitRequest, examples: Examples, origin: dict[str, Any], arguments: dict[str, Any]) -> None:

    settings = encoder_settings(request)
    if request.given.get("threads") is None:
        settings = replace(settings, threads=max(1, int(arguments["cpus"])))
    epochs = Path(arguments["workshop"]) / EPOCHS

    def heard(done: int, total: int, loss: float) -> None:
        write_atomically(epochs, json.dumps({"done": done, "total": total, "loss": loss}).encode())

    fit_encoder(examples, settings, request.base, request.folder, name=request.folder.name, origin=origin, heard=heard)


def _watch(job: Job, ended: threading.Event) -> None:
    """Report whole epochs as progress."""
    while not ended.wait(POLL_SECONDS):
        try:
            told = json.loads((job.run_folder / EPOCHS).read_bytes())
        except (OSError, ValueError):
            continue
        job.note(done=told["done"], total=told["total"])

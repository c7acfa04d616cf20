"""A poisoned document is named by what the document map knows of it, wherever it comes up, and passed over if asked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from storage.lineage import trace_token
from storage.megatron import bin_path
from tests.stored_run import TEXTS, make_stored_run, tokenizer
from trainer.data.batches import TrainingSamples
from trainer.data.mixture import open_mixture
from trainer.faults import STEPS_BEFORE_SPIKES, Watch, name_documents, read_watch, watch_row
from trainer.metrics import read_metrics
from trainer.models.contract import LanguageModel
from trainer.parallel.world import join_world
from trainer.plans import TrainingError, make_plan
from trainer.settings import Preset
from trainer.train import Run

MakePreset = Callable[..., Preset]


@dataclass(frozen=True)
class Planted:
    """A run's mixture, and the one document of it that holds `token`."""

    mixture: Path
    doc_id: str
    token: int


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """In one document of the store a token is replaced by one that stands nowhere else."""
    folder = make_stored_run(tmp_path_factory.mktemp("stored")).mixture
    mixture = open_mixture(folder)
    used = set().union(*(reader[number].tolist() for reader in mixture.readers for number in range(len(reader))))
    token = next(number for number in range(mixture.vocabulary.size) if number not in used)
    reader, name = mixture.readers[0], mixture.train[0].prefix.relative_to(folder).as_posix()
    doc_id = trace_token(folder, name, reader, 1, 0)["doc_id"]
    with open(bin_path(reader.prefix).resolve(), "r+b") as file:
        file.seek(int(reader.pointers[1]) + 2 * reader.itemsize)
        file.write(np.array([token], reader.dtype).tobytes())
    return Planted(folder, doc_id, token)


@pytest.fixture
def stored(planted: Planted) -> Path:
    return planted.mixture


@pytest.fixture
def poisoned(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> str:
    """The planted token's embedding is no number; its document is returned."""
    initialize = LanguageModel.initialize

    def poison(self: LanguageModel, seed: int) -> None:
        initialize(self, seed)
        self.embedding.weight.data[planted.token] = torch.nan

    monkeypatch.setattr(LanguageModel, "initialize", poison)
    return planted.doc_id


def learn(data: Path, preset: Preset, out: Path, said: list[str] | None = None) -> Run:
    mixture = open_mixture(data)
    with join_world("cpu") as world:
        run = Run(mixture, make_plan(mixture, preset, world), out, world, (said if said is not None else []).append)
        run.resume()
        run.train()
    return run


def make(make_preset: MakePreset, **changes: Any) -> Preset:
    preset = make_preset(sequence_length=32, global_batch=4, micro_batch=1, **changes)
    return Preset(name="x", model={**preset.model, "tied_embeddings": False}, training=preset.training)


def read_faults(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "faults.jsonl").read_text().splitlines()]


def test_places_are_the_tokens_of_a_sample(stored: Path) -> None:
    mixture = open_mixture(stored)
    samples = TrainingSamples(mixture, sequence_length=32, num_samples=40, seed=3)
    for number in range(40):
        pieces = [
            samples.readers[shard].read(sequence, first, count)
            for shard, sequence, first, count in samples.places(number)
        ]
        assert np.concatenate(pieces).tolist() == samples[number][:-1].tolist()


def test_every_document_of_a_sample_is_traced(planted: Planted) -> None:
    mixture = open_mixture(planted.mixture)
    samples = TrainingSamples(mixture, sequence_length=32, num_samples=40, seed=3)
    encode = Tokenizer.from_str(tokenizer().data.decode()).encode
    readers = {shard.prefix.name: reader for shard, reader in zip(mixture.train, mixture.readers, strict=True)}
    for row in name_documents(samples, range(40)):
        ids = [*encode(TEXTS[bytes.fromhex(row["doc_id"])]).ids, mixture.vocabulary.end_of_document]
        stored = readers[Path(row["shard"]).name].read(row["sequence"], row["first_token"], row["tokens"]).tolist()
        expected = ids[row["first_token"] :][: row["tokens"]]
        assert stored == expected or (row["doc_id"] == planted.doc_id and planted.token in stored)
        assert row["url"].startswith("https://example.org/") and row["record"]["file"] == "file"


def test_a_run_that_stops_names_the_planted_document(
    stored: Path, tmp_path: Path, make_preset: MakePreset, poisoned: str
) -> None:
    with pytest.raises(TrainingError, match=r"step \d+: the loss is nan.*faults.jsonl") as caught:
        learn(stored, make(make_preset, steps=30), tmp_path)
    (fault,) = read_faults(tmp_path)
    assert poisoned in {row["doc_id"] for row in fault["documents"]}
    assert len({row["sample"] for row in fault["documents"]}) == 1, "only the micro-batch whose loss is no number"
    assert f"--skip-iterations {fault['step']}" in str(caught.value) and "--on-nan skip" in str(caught.value)


def test_a_run_that_goes_on_counts_and_resumes(
    stored: Path, tmp_path: Path, make_preset: MakePreset, poisoned: str
) -> None:
    said: list[str] = []
    preset = make(make_preset, steps=30, on_nan="skip", save_every=10, log_every=1)
    learn(stored, preset, tmp_path / "whole", said)
    rows, faults = read_metrics(tmp_path / "whole/metrics.jsonl"), read_faults(tmp_path / "whole")
    steps = [fault["step"] for fault in faults]
    assert steps and [row["step"] for row in rows if row["loss"] is None] == steps
    assert all(poisoned in {row["doc_id"] for row in fault["documents"]} for fault in faults)
    assert rows[-1]["faulty"] == len(steps) and math.isfinite(rows[-1]["loss"] or 0.0)
    assert any(f"number of nan iterations: {len(steps):3d}" in line for line in said)
    skipping = make(make_preset, steps=30, skip_iterations=",".join(map(str, steps)))
    learn(stored, skipping, tmp_path / "skipped")
    again = read_metrics(tmp_path / "skipped/metrics.jsonl")
    assert [row["loss"] for row in again] == [row["loss"] for row in rows]
    assert again[-1]["skipped"] == len(steps) and again[-1]["faulty"] == 0


@pytest.mark.usefixtures("poisoned")
def test_too_many_in_a_row_stop_a_run(stored: Path, tmp_path: Path, make_preset: MakePreset) -> None:
    wild = make(make_preset, steps=30, on_nan="skip", nan_limit=2, clip=0.0, learning_rate=1e30, warmup_fraction=0.0)
    with pytest.raises(TrainingError, match="so were 2 steps before it"):
        learn(stored, wild, tmp_path)
    assert [fault["step"] for fault in read_faults(tmp_path)][-3:] == list(range(*_span(tmp_path)))


def _span(out: Path) -> tuple[int, int]:
    last = read_faults(out)[-1]["step"]
    return last - 2, last + 1


def test_without_a_map_the_place_is_named(mixture_folder: Path) -> None:
    samples = TrainingSamples(open_mixture(mixture_folder), sequence_length=32, num_samples=4, seed=1)
    rows = name_documents(samples, [0])
    assert sum(row["tokens"] for row in rows) == 32
    assert {"sample", "shard", "sequence", "first_token", "tokens", "source"} == set(rows[0])


def test_a_spike_is_a_fault_once_there_is_a_mean(make_preset: MakePreset) -> None:
    config, watch = make_preset(spike_limit=3.0).training, Watch()
    assert watch.find_fault(100.0, 1.0, config) is None, "the first steps have no mean yet"
    for _ in range(400):
        assert watch.find_fault(2.0, 1.0, config) is None
    assert watch.seen >= STEPS_BEFORE_SPIKES and watch.mean == pytest.approx(2.0, abs=0.1)
    assert "over 3 times its running mean" in (watch.find_fault(6.5, 1.0, config) or "")
    assert watch.find_fault(5.5, 1.0, config) is None
    assert read_watch({"watch": json.loads(json.dumps(watch_row(watch)))}) == watch

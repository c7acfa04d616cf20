"""lm-eval on our checkpoint, on the exported model through transformers, and our own figures: all the same.

lm-eval is a peer: `GRISTMILL_PEERS` names the folder that `benchmarks/harness.txt` was installed into.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.errors import ResourceError
from trainer.checkpoints.trained import Trained, open_trained
from trainer.evaluation.harness import HarnessModel, harness_class, run_harness
from trainer.evaluation.likelihood import LikelihoodModel
from trainer.evaluation.multiple_choice import answer_benchmark
from trainer.evaluation.questions import open_benchmark
from trainer.exchange.export import export_model
from trainer.models.kinds import build_model
from trainer.models.llama import LlamaConfig

TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}, dev: {file}}}}}
test_split: test
fewshot_split: dev
fewshot_config: {{sampler: first_n}}
output_type: multiple_choice
doc_to_text: "{{{{query.rstrip()}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{{metric: acc}}, {{metric: acc_norm}}, {{metric: acc_bytes}}]
"""
TEXT_TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: {kind}
doc_to_text: {text}
doc_to_target: query
{more}
"""


@pytest.fixture(scope="module")
def opened(trained: Path) -> Trained:
    return open_trained(trained)


def test_windows_score_every_token_once_with_what_is_before(opened: Trained) -> None:
    model = HarnessModel(opened, window=8)
    ids = tuple(range(1, 22))
    windows = model._windows(ids)
    assert [token for _, scored in windows for token in scored] == list(ids)
    assert [len(before) for before, _ in windows] == [1, 1, 4] and windows[2][0] == ids[12:16]
    assert windows[0][0] == (opened.vocabulary.end_of_document,)


def test_without_the_harness_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(ResourceError, match="lm-eval cannot be imported"):
        harness_class.__wrapped__()


@pytest.fixture
def lm_eval(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The harness from the peers' folder, without a network."""
    peers = Path(os.environ.get("GRISTMILL_PEERS", Path(__file__).parents[2] / ".cache" / "peers"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(peers)])
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("lm_eval.tasks")
    pytest.importorskip("lm_eval.api.instance")
    return pytest.importorskip("lm_eval")


@pytest.fixture
def roomy(opened: Trained, shape: Callable[..., LlamaConfig]) -> Trained:
    """The same vocabulary, weights by chance that hold strong opinions, and room for real questions."""
    model = build_model(shape(init_std=0.25, max_positions=512))
    model.initialize(5)
    return replace(opened, model=model, training=replace(opened.training, sequence_length=512))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_three_programs_give_the_same_figures(lm_eval: Any, roomy: Trained, tmp_path: Path, shared_data: Path) -> None:
    """512 positions: few-shot contexts are cut in front by all three, choices fit."""
    tasks, exported = tmp_path / "tasks", tmp_path / "model"
    tasks.mkdir()
    export_model(roomy, exported)
    names = ("arc_easy", "piqa")
    for name in names:
        lines = gzip.decompress((shared_data / "evaluation" / f"{name}.jsonl.gz").read_bytes()).splitlines()
        rows = [line for line in lines if len(line) < 700][:120]
        (tasks / f"{name}.jsonl").write_bytes(b"\n".join(rows))
        (tasks / f"{name}.yaml").write_text(TASK.format(name=f"own_{name}", file=tasks / f"{name}.jsonl"))
    texts = [{"query": "The miller grinds rye. 水车 mahlt 42. " * n} for n in (1, 9, 60)]
    (tasks / "lines.jsonl").write_text("\n".join(map(json.dumps, texts)))
    (tasks / "rolling.yaml").write_text(
        TEXT_TASK.format(
            name="own_rolling", file=tasks / "lines.jsonl", kind="loglikelihood_rolling", text='""',
            more="metric_list: [{metric: bits_per_byte}]",
        )
    )  # fmt: skip
    wanted = [*(f"own_{name}" for name in names), "own_rolling"]
    manager = lm_eval.tasks.TaskManager(include_path=str(tasks))
    ours = harness_class()(roomy, plain=True, window=512)
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(pretrained=str(exported), max_length=512, dtype="float32", device="cpu", batch_size=16)
    for shots in (0, 2):
        figures = []
        for model in (ours, theirs):
            found = lm_eval.simple_evaluate(
                model=model, tasks=wanted, num_fewshot=shots, task_manager=manager, bootstrap_iters=100
            )["results"]
            figures.append(
                {
                    (task, key.partition(",")[0]): value
                    for task in wanted
                    for key, value in found[task].items()
                    if isinstance(value, float)
                }
            )
        assert figures[0].keys() == figures[1].keys() and len(figures[0]) >= 7
        for key, value in figures[0].items():
            assert value == pytest.approx(figures[1][key], abs=1e-4), key
        for name in names:
            own = answer_benchmark(
                open_benchmark(f"plain={tasks / name}.jsonl"), LikelihoodModel(roomy, window=512).score, shots=shots
            )
            for figure in ("acc", "acc_norm", "acc_bytes"):
                assert getattr(own, figure) == pytest.approx(figures[1][f"own_{name}", figure]), (name, shots, figure)
            assert own.acc_error == pytest.approx(figures[1][f"own_{name}", "acc_stderr"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transformers_writes_the_same_texts(lm_eval: Any, opened: Trained, tmp_path: Path) -> None:
    """A trained model, since one of random weights may draw padding of the vocabulary, which ours never does."""
    from lm_eval.models.huggingface import HFLM

    export_model(opened, tmp_path)
    theirs = HFLM(pretrained=str(tmp_path), max_length=64, dtype="float32", device="cpu", batch_size=16)
    requests = [
        lm_eval.api.instance.Instance("generate_until", {}, (text, {"until": ["."], "max_gen_toks": 12}), number)
        for number, text in enumerate(["The miller", "A river", "水车 grinds"])
    ]
    ours = harness_class()(opened, plain=True).generate_until(requests)
    assert ours == theirs.generate_until(requests, disable_tqdm=True) and all(ours)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_command_keeps_the_harness_figures(lm_eval: Any, opened: Trained, tmp_path: Path) -> None:
    rows = [{"query": "The miller", "choices": ["grinds rye.", "## ?! ##"], "gold": 0}] * 4
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "own.yaml").write_text(TASK.format(name="own_small", file=tmp_path / "own.jsonl"))
    scores = run_harness(opened, ["own_small"], include=tmp_path, limit=3)
    assert scores["own_small"].items == 3 and 0 <= scores["own_small"].figures["acc"] <= 1

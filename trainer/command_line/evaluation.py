"""The command `evaluate`: what a checkpoint has learned, from a mixture's held-out texts and from files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from storage.errors import InputError
from trainer.checkpoints.trained import Trained, open_trained
from trainer.command_line.shared import Commands, add_checkpoints, add_prompts, print_now
from trainer.data.mixture import open_mixture
from trainer.evaluation.held_out import evaluate_model, write_evaluation
from trainer.evaluation.likelihood import LikelihoodModel
from trainer.evaluation.multiple_choice import answer_benchmark
from trainer.evaluation.questions import Benchmark, benchmark_name, open_benchmark
from trainer.evaluation.results import Result, add_results, results_file, table_lines
from trainer.evaluation.texts import score_texts
from trainer.parallel.world import World, join_world
from trainer.plans import EVALUATION_FILE
from trainer.registry.record import record_scores


def add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser("evaluate", help="what a checkpoint has learned: held-out texts, files, benchmarks")
    parser.set_defaults(run=_evaluate)
    add_checkpoints(parser)
    parser.add_argument("--data", type=Path, help="mixture folder with the held-out texts")
    parser.add_argument(
        "--texts", type=Path, nargs="+", default=[], metavar="FILE", help="bits per byte of these files' texts"
    )
    parser.add_argument(
        "--tasks", nargs="+", default=[], metavar="[FORMAT=]FILE", help="multiple choice from these files"
    )
    parser.add_argument("--shots", type=int, default=0, help="solved examples before each question")
    parser.add_argument(
        "--examples",
        nargs="+",
        default=[],
        metavar="[FORMAT=]FILE",
        help="where examples come from (the task's own file)",
    )
    parser.add_argument("--limit", type=int, help="only the first questions of each file")
    add_prompts(parser, "what the samples continue")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute")
    parser.add_argument("--json", action="store_true", help="print the results as JSON in place of a table")


def _evaluate(options: argparse.Namespace) -> None:
    if not (options.data or options.texts or options.tasks):
        raise InputError("nothing to evaluate on", hint="give `--data MIXTURE`, `--texts FILE` or `--tasks FILE`")
    if options.shots < 0 or (options.limit is not None and options.limit < 1):
        raise InputError("`--shots` must be at least 0, `--limit` at least 1")
    tasks = [open_benchmark(named) for named in options.tasks]
    examples = {benchmark.format: benchmark for benchmark in map(open_benchmark, options.examples)}
    trained = open_trained(options.checkpoints)
    with join_world(options.device) as world:
        trained.model.to(world.device)
        results = [*_text_results(options.texts, trained, world), *_task_results(options, tasks, examples, trained)]
        if world.is_first and results:
            add_results(trained, results)
        lines = _held_out_lines(options, trained, world) if options.data else []
        if world.is_first:
            _tell(options, trained, results, lines)


def _text_results(paths: list[Path], trained: Trained, world: World) -> Iterator[Result]:
    for path in paths:
        yield Result(name=benchmark_name(path), kind="texts", figures=score_texts(trained, path, world))


def _task_results(
    options: argparse.Namespace, tasks: list[Benchmark], examples: dict[str, Benchmark], trained: Trained
) -> Iterator[Result]:
    model = LikelihoodModel(trained) if tasks else None
    for task in tasks:
        assert model is not None
        figures = answer_benchmark(
            task, model.score, shots=options.shots, examples=examples.get(task.format), limit=options.limit
        )
        yield Result(name=f"{task.name}@{options.shots}", kind="multiple_choice", figures=figures)


def _held_out_lines(options: argparse.Namespace, trained: Trained, world: World) -> list[str]:
    mixture = open_mixture(options.data)
    trained.refuse_another_vocabulary(mixture.vocabulary, options.data)
    result = evaluate_model(trained.model, mixture, trained.training, world, prompts=tuple(options.prompt))
    if world.is_first:
        record_scores(trained.checkpoint, result.bits_per_byte)
        write_evaluation(trained.folder / EVALUATION_FILE, result, step=trained.step, tokens=trained.tokens)
    return result.lines()


def _tell(options: argparse.Namespace, trained: Trained, results: list[Result], lines: list[str]) -> None:
    if options.json:
        row = {"step": trained.step, "tokens": trained.tokens, "results": {it.name: it.row for it in results}}
        if options.data:
            row["held_out"] = json.loads((trained.folder / EVALUATION_FILE).read_bytes())
        print_now(json.dumps(row, ensure_ascii=False))
        return
    print_now("\n".join([*table_lines(results), *lines]))
    if results:
        print_now(f"results: {results_file(trained)}")

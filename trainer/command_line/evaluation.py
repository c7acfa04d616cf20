"""The command `evaluate`: what a checkpoint has learned, from a mixture's held-out texts and from files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from storage.errors import InputError
from trainer.checkpoints.folders import read_tracker
from trainer.checkpoints.trained import Trained, open_trained
from trainer.command_line.shared import Commands, add_checkpoints, add_prompts, print_now
from trainer.data.mixture import open_mixture
from trainer.evaluation.chains import Chains, compare_chains
from trainer.evaluation.held_out import evaluate_model, write_evaluation
from trainer.evaluation.likelihood import LikelihoodModel
from trainer.evaluation.multiple_choice import answer_benchmark
from trainer.evaluation.needle import NeedleGrid, find_needles
from trainer.evaluation.programs import Problems, measure_passes
from trainer.evaluation.questions import Benchmark, benchmark_name, open_benchmark
from trainer.evaluation.results import RESULTS_FOLDER, Result, add_results, results_file, table_lines
from trainer.evaluation.rows import read_texts
from trainer.evaluation.sandbox import SandboxLimits, require_guards
from trainer.evaluation.tasks import Task, open_task
from trainer.evaluation.texts import score_texts
from trainer.models.kinds import count_parameters
from trainer.parallel.world import World, join_world
from trainer.plans import EVALUATION_FILE
from trainer.registry.record import record_scores
from trainer.serving.generate import generate_texts
from trainer.serving.sampling import Sampling


def add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser("evaluate", help="what a checkpoint has learned: held-out texts, files, benchmarks")
    parser.set_defaults(run=_evaluate)
    add_checkpoints(parser)
    parser.add_argument("--data", type=Path, help="mixture folder with the held-out texts")
    _add_files(parser)
    _add_code(parser)
    _add_needle(parser)
    add_prompts(parser, "what the samples continue")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute")
    parser.add_argument("--json", action="store_true", help="print the results as JSON in place of a table")


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--texts", type=Path, nargs="+", default=[], metavar="FILE", help="bits per byte of these files' texts"
    )
    parser.add_argument(
        "--tasks", nargs="+", default=[], metavar="[FORMAT=]FILE", help="multiple choice, programs or paired chains"
    )
    parser.add_argument("--shots", type=int, default=0, help="solved examples before each question")
    parser.add_argument(
        "--examples", nargs="+", default=[], metavar="[FORMAT=]FILE", help="examples in place of the task's own"
    )
    parser.add_argument("--limit", type=int, help="only the first items of each file")


def _add_code(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run-code", action="store_true", help="run what the model writes, in the sandbox")
    parser.add_argument("--samples", type=int, default=1, help="programs a problem")
    parser.add_argument("--pass-at", type=int, nargs="+", default=[1], metavar="K", help="pass@k for these k")
    parser.add_argument("--code-temperature", type=float, default=0.2, help="temperature of programs")
    parser.add_argument("--code-tokens", type=int, default=384, help="longest program")
    parser.add_argument("--unguarded", action="store_true", help="run programs where the sandbox cannot hold them")


def _add_needle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--needle", type=int, nargs="+", default=[], metavar="TOKENS", help="needles in texts of these lengths"
    )
    parser.add_argument("--depths", type=float, nargs="+", default=list(NeedleGrid.depths), help="how deep, 0 to 1")
    parser.add_argument("--haystack", type=Path, help="text to hide needles in")
    parser.add_argument("--trials", type=int, default=NeedleGrid.trials, help="needles a length and depth")


def _evaluate(options: argparse.Namespace) -> None:
    _check(options)
    tasks = [open_task(named) for named in options.tasks]
    examples = {benchmark.format: benchmark for benchmark in map(open_benchmark, options.examples)}
    if any(isinstance(task, Problems) for task in tasks):
        _check_code(options)
    trained = open_trained(options.checkpoints)
    with join_world(options.device) as world:
        trained.model.to(world.device)
        results = list(_results(options, tasks, examples, trained, world))
        if world.is_first and results:
            add_results(trained, results)
        lines = _held_out_lines(options, trained, world) if options.data else []
        if world.is_first:
            _tell(options, trained, results, lines)


def _check(options: argparse.Namespace) -> None:
    if not (options.data or options.texts or options.tasks or options.needle):
        raise InputError(
            "nothing to evaluate on", hint="give `--data MIXTURE`, `--texts FILE`, `--tasks FILE` or `--needle TOKENS`"
        )
    if options.shots < 0 or (options.limit is not None and options.limit < 1):
        raise InputError("`--shots` must be at least 0, `--limit` at least 1")
    if options.needle and not options.haystack:
        raise InputError("needles need a haystack", hint="give a file of text with `--haystack`")


def _check_code(options: argparse.Namespace) -> None:
    if not options.run_code:
        raise InputError("programs that a model writes would be run", hint="agree to it with `--run-code`")
    require_guards(accept_none=options.unguarded)


def _results(
    options: argparse.Namespace,
    tasks: Sequence[Task],
    examples: dict[str, Benchmark],
    trained: Trained,
    world: World,
) -> Iterator[Result]:
    for path in options.texts:
        yield Result(name=benchmark_name(path), kind="texts", figures=score_texts(trained, path, world))
    model = LikelihoodModel(trained)
    for task in tasks:
        yield _task_result(options, task, examples, model)
    if options.needle:
        grid = NeedleGrid(lengths=tuple(options.needle), depths=tuple(options.depths), trials=options.trials)
        whole = LikelihoodModel(trained, window=trained.model.config.max_positions)
        figures = find_needles(whole, list(read_texts(options.haystack)), grid)
        yield Result(name="needle", kind="needle", figures=figures)


def _task_result(
    options: argparse.Namespace, task: Task, examples: dict[str, Benchmark], model: LikelihoodModel
) -> Result:
    if isinstance(task, Problems):
        return Result(name=task.name, kind="programs", figures=_pass_programs(options, task, model))
    if isinstance(task, Chains):
        chained = compare_chains(task, model.score, count_parameters(model.model), options.limit)
        return Result(name=task.name, kind="chains", figures=chained)
    figures = answer_benchmark(
        task, model.score, shots=options.shots, examples=examples.get(task.format), limit=options.limit
    )
    return Result(name=f"{task.name}@{options.shots}", kind="multiple_choice", figures=figures)


def _pass_programs(options: argparse.Namespace, problems: Problems, model: LikelihoodModel) -> Any:
    trained = model.trained

    def write(prompts: Sequence[str], number: int) -> list[str]:
        samplings = [
            Sampling(
                max_tokens=options.code_tokens,
                temperature=options.code_temperature,
                top_k=0,
                top_p=0.95,
                seed=number * len(prompts) + place,
            )
            for place in range(len(prompts))
        ]
        return generate_texts(trained.model, model.tokenizer, prompts, trained.vocabulary, trained.training, samplings)

    return measure_passes(
        problems, write, samples=options.samples, ks=options.pass_at, limits=SandboxLimits(), limit=options.limit
    )


def _held_out_lines(options: argparse.Namespace, trained: Trained, world: World) -> list[str]:
    mixture = open_mixture(options.data)
    trained.refuse_another_vocabulary(mixture.vocabulary, options.data)
    result = evaluate_model(trained.model, mixture, trained.training, world, prompts=tuple(options.prompt))
    if world.is_first:
        record_scores(trained.checkpoint, result.bits_per_byte)
        write_evaluation(_held_out_file(trained), result, step=trained.step, tokens=trained.tokens)
    return result.lines()


def _held_out_file(trained: Trained) -> Path:
    """The run's own evaluation for its latest checkpoint; one beside its other results for an earlier one."""
    if trained.step == read_tracker(trained.folder):
        return trained.folder / EVALUATION_FILE
    return trained.folder / RESULTS_FOLDER / f"held-out-{trained.checkpoint.name}.json"


def _tell(options: argparse.Namespace, trained: Trained, results: list[Result], lines: list[str]) -> None:
    if options.json:
        row = {"step": trained.step, "tokens": trained.tokens, "results": {it.name: it.row for it in results}}
        if options.data:
            row["held_out"] = json.loads(_held_out_file(trained).read_bytes())
        print_now(json.dumps(row, ensure_ascii=False))
        return
    print_now("\n".join([*table_lines(results), *lines]))
    if results:
        print_now(f"results: {results_file(trained)}")

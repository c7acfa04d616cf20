"""The command `harness`: lm-eval's own tasks on a checkpoint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainer.checkpoints.trained import open_trained
from trainer.command_line.shared import Commands, add_checkpoints, print_now
from trainer.evaluation.harness import run_harness
from trainer.evaluation.results import Result, add_results, results_file
from trainer.parallel.world import join_world


def add_harness(commands: Commands) -> None:
    parser = commands.add_parser("harness", help="lm-eval's tasks on a checkpoint, where lm-eval is installed")
    parser.set_defaults(run=_harness)
    add_checkpoints(parser)
    parser.add_argument("--tasks", nargs="+", required=True, metavar="NAME", help="names of the harness's tasks")
    parser.add_argument("--include", type=Path, help="folder of task files of your own")
    parser.add_argument("--shots", type=int, help="examples before each question (the task's by default)")
    parser.add_argument("--limit", type=int, help="only the first items of each task")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute")


def _harness(options: argparse.Namespace) -> None:
    trained = open_trained(options.checkpoints)
    with join_world(options.device) as world:
        trained.model.to(world.device)
        scores = run_harness(trained, options.tasks, include=options.include, shots=options.shots, limit=options.limit)
    add_results(
        trained, [Result(name=f"lm-eval:{name}", kind="lm_eval", figures=score) for name, score in scores.items()]
    )
    for name, score in scores.items():
        print_now(f"{name}  {json.dumps(score.figures)}")
    print_now(f"results: {results_file(trained)}")

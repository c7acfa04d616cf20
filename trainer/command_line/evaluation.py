"""The command `evaluate`: what a checkpoint has learned."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.checkpoints.trained import open_trained
from trainer.command_line.shared import Commands, add_checkpoints, add_prompts, print_now
from trainer.data.mixture import open_mixture
from trainer.evaluation.held_out import evaluate_model, write_evaluation
from trainer.parallel.world import join_world
from trainer.plans import EVALUATION_FILE


def add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser("evaluate", help="bits per byte of a checkpoint on held-out texts")
    parser.set_defaults(run=_evaluate)
    add_checkpoints(parser)
    parser.add_argument("--data", type=Path, required=True, help="mixture folder with the held-out texts")
    add_prompts(parser, "what the samples continue")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute")


def _evaluate(options: argparse.Namespace) -> None:
    trained, mixture = open_trained(options.checkpoints), open_mixture(options.data)
    trained.refuse_another_vocabulary(mixture.vocabulary, options.data)
    with join_world(options.device) as world:
        trained.model.to(world.device)
        result = evaluate_model(trained.model, mixture, trained.training, world, prompts=tuple(options.prompt))
        if world.is_first:
            write_evaluation(trained.folder / EVALUATION_FILE, result, step=trained.step, tokens=trained.tokens)
            print_now("\n".join(result.lines()))

"""`python -m trainer train|evaluate|generate|export`: the trainer's command line.

Exit codes: 0 done, 2 something that the user can mend (three lines, no traceback), 1 a fault of ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from storage.errors import CurationError
from trainer.checkpoints.trained import open_trained
from trainer.data.mixture import open_mixture
from trainer.evaluation.held_out import evaluate_model, write_evaluation
from trainer.exchange.export import export_model
from trainer.parallel.world import join_world
from trainer.plans import EVALUATION_FILE
from trainer.serving.generate import Sampling, generate_text, open_tokenizer
from trainer.settings import TrainingConfig, load_preset
from trainer.train import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except CurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Every command and option; the training options are the fields of TrainingConfig."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=main.__doc__)
    parser.description = "Train a small language model on Megatron shards, and see what it has learned."
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train, resume or finish a run, then evaluate it"))
    _add_evaluate(commands.add_parser("evaluate", help="bits per byte of a checkpoint on held-out texts"))
    _add_generate(commands.add_parser("generate", help="text that a checkpoint writes"))
    _add_export(commands.add_parser("export", help="a checkpoint as a Hugging Face LlamaForCausalLM"))
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_train)
    parser.add_argument("--data", type=Path, required=True, help="mixture folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints; an unfinished run resumes")
    parser.add_argument("--preset", default="tiny", help="tiny, small, chuxin-1.6b, or the path of a YAML file")
    parser.add_argument("--prompt", action="append", default=[], help="what the samples continue; may be repeated")
    types = get_type_hints(TrainingConfig)
    for item in dataclasses.fields(TrainingConfig):
        kind = types[item.name]
        options: dict[str, Any] = {"help": item.metadata["help"] + " (the preset's by default)", "default": None}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": kind if kind in (int, float, str) else int, "choices": item.metadata["choices"]}
        parser.add_argument(f"--{item.name.replace('_', '-')}", **options)


def _train(options: argparse.Namespace) -> None:
    names = [item.name for item in dataclasses.fields(TrainingConfig)]
    overrides = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    preset = load_preset(options.preset, overrides)
    train(options.data, preset, options.out, prompts=tuple(options.prompt), tell=_print_now)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_evaluate)
    _add_checkpoints(parser)
    parser.add_argument("--data", type=Path, required=True, help="mixture folder with the held-out texts")
    parser.add_argument("--prompt", action="append", default=[], help="what the samples continue; may be repeated")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute")


def _evaluate(options: argparse.Namespace) -> None:
    trained, mixture = open_trained(options.checkpoints), open_mixture(options.data)
    trained.refuse_another_vocabulary(mixture.vocabulary, options.data)
    with join_world(options.device) as world:
        trained.model.to(world.device)
        result = evaluate_model(trained.model, mixture, trained.training, world, prompts=tuple(options.prompt))
        if world.is_first:
            write_evaluation(trained.folder / EVALUATION_FILE, result, step=trained.step, tokens=trained.tokens)
            _print_now("\n".join(result.lines()))


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_generate)
    _add_checkpoints(parser)
    parser.add_argument("--prompt", action="append", default=[], help="what to continue; may be repeated")
    parser.add_argument("--max-tokens", type=int, default=Sampling.max_tokens, help="longest continuation")
    parser.add_argument("--temperature", type=float, default=Sampling.temperature, help="0 takes the likeliest token")
    parser.add_argument("--top-k", type=int, default=Sampling.top_k, help="draw among this many tokens")
    parser.add_argument("--seed", type=int, default=Sampling.seed, help="seed of the draws")


def _generate(options: argparse.Namespace) -> None:
    trained = open_trained(options.checkpoints)
    tokenizer = open_tokenizer(trained.tokenizer_file)
    sampling = Sampling(
        max_tokens=options.max_tokens, temperature=options.temperature, top_k=max(1, options.top_k), seed=options.seed
    )
    for prompt in options.prompt or [""]:
        text = generate_text(trained.model, tokenizer, prompt, trained.vocabulary, trained.training, sampling)
        _print_now(prompt + text)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_export)
    _add_checkpoints(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the Hugging Face model")


def _export(options: argparse.Namespace) -> None:
    for path in export_model(open_trained(options.checkpoints), options.out):
        _print_now(str(path))


def _add_checkpoints(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoints", type=Path, required=True, help="a run's folder (its latest checkpoint) or one iter_… folder"
    )


def _print_now(line: str) -> None:
    print(line, flush=True)

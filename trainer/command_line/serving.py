"""The command `generate`: what a checkpoint writes."""

from __future__ import annotations

import argparse

from trainer.checkpoints.trained import open_trained
from trainer.command_line.shared import Commands, add_checkpoints, add_prompts, print_now
from trainer.serving.generate import Sampling, generate_text, open_tokenizer


def add_generate(commands: Commands) -> None:
    parser = commands.add_parser("generate", help="text that a checkpoint writes")
    parser.set_defaults(run=_generate)
    add_checkpoints(parser)
    add_prompts(parser, "what to continue")
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
        print_now(prompt + text)

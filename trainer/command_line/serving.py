"""The commands `generate`, `complete` and `serve`: what a checkpoint writes."""

from __future__ import annotations

import argparse
from pathlib import Path

from storage.errors import InputError
from trainer.checkpoints.trained import Trained, open_trained
from trainer.command_line.shared import Commands, add_checkpoints, add_prompts, print_now
from trainer.evaluation.stories import complete_stories
from trainer.parallel.world import join_world
from trainer.serving.generate import generate_texts, open_tokenizer
from trainer.serving.requests import Limits
from trainer.serving.sampling import Sampling
from trainer.serving.server import LOOPBACK, open_server


def add_generate(commands: Commands) -> None:
    parser = commands.add_parser("generate", help="text that a checkpoint writes")
    parser.set_defaults(run=_generate)
    add_checkpoints(parser)
    add_prompts(parser, "what to continue")
    _add_sampling(parser)


def _generate(options: argparse.Namespace) -> None:
    trained, sampling = _on_device(options), _sampling(options)
    tokenizer, prompts = open_tokenizer(trained.tokenizer_file), options.prompt or [""]
    texts = generate_texts(
        trained.model, tokenizer, prompts, trained.vocabulary, trained.training, [sampling] * len(prompts)
    )
    for prompt, text in zip(prompts, texts, strict=True):
        print_now(prompt + text)


def add_complete(commands: Commands) -> None:
    parser = commands.add_parser("complete", help="completions of a file of prompts, for judges")
    parser.set_defaults(run=_complete)
    add_checkpoints(parser)
    parser.add_argument("--prompts", type=Path, required=True, help="JSON lines with `prompt`, or a line a prompt")
    parser.add_argument("--out", type=Path, required=True, help="the JSON lines that are written")
    parser.add_argument("--completions", type=int, default=10, help="texts a prompt, by seeds that follow each other")
    _add_sampling(parser, temperature=1.0)


def _complete(options: argparse.Namespace) -> None:
    trained = _on_device(options)
    count = complete_stories(trained, options.prompts, options.out, _sampling(options), options.completions)
    print_now(f"{count} completions: {options.out}")


def add_serve(commands: Commands) -> None:
    parser = commands.add_parser("serve", help="a checkpoint behind HTTP: /generate and OpenAI's /v1/completions")
    parser.set_defaults(run=_serve)
    add_checkpoints(parser)
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on; others than loopback are open to all")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--most-tokens", type=int, default=Limits.max_tokens, help="longest text of a request")
    _add_device(parser)


def _serve(options: argparse.Namespace) -> None:
    if options.most_tokens < 1 or not 0 <= options.port < 1 << 16:
        raise InputError("`--most-tokens` must be at least 1, `--port` between 0 and 65535")
    limits = Limits(max_tokens=options.most_tokens)
    with open_server(_on_device(options), host=options.host, port=options.port, limits=limits) as server:
        print_now(f"{server.model_name} on http://{options.host}:{server.server_port}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print_now("stopped")


def _on_device(options: argparse.Namespace) -> Trained:
    trained = open_trained(options.checkpoints)
    with join_world(options.device) as world:
        trained.model.to(world.device)
    return trained


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute")


def _add_sampling(parser: argparse.ArgumentParser, temperature: float = Sampling.temperature) -> None:
    parser.add_argument("--max-tokens", type=int, default=Sampling.max_tokens, help="longest continuation")
    parser.add_argument("--temperature", type=float, default=temperature, help="0 takes the likeliest token")
    parser.add_argument("--top-k", type=int, default=Sampling.top_k, help="draw among this many tokens; 0: all")
    parser.add_argument(
        "--top-p", type=float, default=Sampling.top_p, help="draw among the likeliest that make up this"
    )
    parser.add_argument("--stop", action="append", default=[], help="text to end before; may be repeated")
    parser.add_argument("--seed", type=int, default=Sampling.seed, help="seed of the draws")
    _add_device(parser)


def _sampling(options: argparse.Namespace) -> Sampling:
    return Sampling(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=options.seed,
        stop=tuple(options.stop),
    )

"""Every command in the documentation is one: it is parsed by what would run it, and not run."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from benchmarks.__main__ import names
from pipelines.cli import cli
from pipelines.reference import PAGE, reference
from trainer.cli import build_parser

SHELL = ("bash", "console", "sh")


def parse_gristmill(words: list[str]) -> None:
    """Raises click.ClickException where a command, option or argument does not exist."""
    with cli.make_context("gristmill", list(words)) as context:
        given = [*context._protected_args, *context.args]
        _parse(cli, context, given)


def _parse(group: click.Group, context: click.Context, words: list[str]) -> None:
    _, command, rest = group.resolve_command(context, words)
    assert command is not None
    with command.make_context(command.name, list(rest), parent=context) as inner:
        if isinstance(command, click.Group):
            _parse(command, inner, [*inner._protected_args, *inner.args])


def all_commands(group: click.Group = cli, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its words, those of groups inside too."""
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{prefix}{name} ")


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block; what a console shows after one is left out."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            yield words


@pytest.fixture(scope="module")
def documented(blocks: list, inline_code: list) -> list[tuple[str, list[str]]]:
    """(place, words) of every command in a shell block, and of inline code that begins like one of ours."""
    found = [(str(block), words) for block in blocks if block.language in SHELL for words in commands(block.text)]
    ours = [block for block in inline_code if re.match(r"(gristmill|make|python -m \w+) [\w-]", block.text)]
    return found + [(f"{block} in prose", words) for block in ours for words in commands(block.text)]


def test_the_reference_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(cli), "renew it: python -m pipelines.reference"


def test_every_command_and_option_is_in_the_reference() -> None:
    """The generator must not forget one: names are looked up in the click tree, not in its output."""
    text = PAGE.read_text(encoding="utf-8")
    for name, command in all_commands():
        section = text.partition(f"## gristmill {name}\n")[2].partition("\n## ")[0]
        assert section, f"`gristmill {name}` is not documented"
        assert command.help and command.help.split(".")[0].split()[0] in section
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert f"`{option}" in section, f"`gristmill {name} {option}` is not documented"


def test_every_option_says_what_it_does() -> None:
    silent = [
        f"{name} {parameter.opts[0]}"
        for name, command in all_commands()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert not silent


def test_readme_and_guides_mention_every_command(documented: list[tuple[str, list[str]]]) -> None:
    used = {words[1] for place, words in documented if words[0] == "gristmill" and "reference" not in place}
    assert set(cli.commands) <= used


def test_documented_commands_exist(documented: list[tuple[str, list[str]]]) -> None:
    faults = []
    for place, words in documented:
        if words[0] == "gristmill":
            try:
                parse_gristmill(words[1:])
            except (click.MissingParameter, click.exceptions.NoArgsIsHelpError) as error:
                if not place.endswith("in prose"):
                    faults.append(f"{place}: {' '.join(words)}: {error.format_message()}")
            except click.ClickException as error:
                faults.append(f"{place}: {' '.join(words)}: {error.format_message()}")
            except click.exceptions.Exit:
                continue
    assert not faults


def test_a_wrong_command_would_be_found() -> None:
    for wrong in (["grind"], ["run", "--wbe", "x"], ["why"], ["export", "a", "--format", "csv"]):
        with pytest.raises(click.ClickException):
            parse_gristmill(wrong)


def test_documented_make_targets_exist(documented: list[tuple[str, list[str]]], project_root: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (project_root / "Makefile").read_text(), re.MULTILINE))
    targets |= {"bench-NAME", *(f"bench-{name}" for stem in names() for name in (stem, stem.replace("_", "-")))}
    used = {word for _, words in documented if words[0] == "make" for word in words[1:] if "=" not in word}
    assert used and not used - targets


def test_documented_modules_exist(documented: list[tuple[str, list[str]]], project_root: Path) -> None:
    used = {words[2] for _, words in documented if words[:2] == ["python", "-m"]}
    for name in used & {name for name in used if (project_root / name.partition(".")[0]).is_dir()}:
        path = project_root / Path(*name.split("."))
        assert (path / "__main__.py").is_file() or path.with_suffix(".py").is_file(), name


def test_documented_trainer_commands_parse(documented: list[tuple[str, list[str]]]) -> None:
    found = [words[3:] for _, words in documented if words[:3] == ["python", "-m", "trainer"]]
    assert {words[0] for words in found} >= {"train", "evaluate", "generate", "export"}
    for words in found:
        if len(words) > 1:
            build_parser().parse_args(words)


def test_every_trainer_option_is_in_a_guide(project_root: Path) -> None:
    guide = "".join(path.read_text(encoding="utf-8") for path in (project_root / "docs" / "guides").glob("*.md"))
    subcommands = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    for name, parser in subcommands.items():
        for action in parser._actions:
            options = [text for text in action.option_strings if text.startswith("--") and text != "--help"]
            assert not options or any(re.search(rf"{re.escape(text)}\b", guide) for text in options), (name, options)


def test_documented_deployments_and_parameters_exist(
    documented: list[tuple[str, list[str]]], project_root: Path
) -> None:
    """`prefect deployment run FLOW/NAME --param x=…`: the flow's parameters are read from its source."""
    flows = {}
    for entry in yaml.safe_load((project_root / "prefect.yaml").read_text())["deployments"]:
        file, function = entry["entrypoint"].split(":")
        flows[entry["name"]] = parameters_of(project_root / file, function)
    found = [words[3:] for _, words in documented if words[:3] == ["prefect", "deployment", "run"]]
    assert found
    for words in found:
        flow, _, name = words[0].partition("/")
        assert name in flows and flow == flows[name][0]
        given = {words[i + 1].partition("=")[0] for i, word in enumerate(words) if word in ("--param", "-p")}
        assert not given - flows[name][1]


def parameters_of(file: Path, function: str) -> tuple[str, set[str]]:
    """The flow's name and the names of its parameters."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            decorator = next(d for d in node.decorator_list if isinstance(d, ast.Call))
            names = {keyword.arg: keyword.value for keyword in decorator.keywords}
            return str(ast.literal_eval(names["name"])), {argument.arg for argument in node.args.args}
    raise AssertionError(f"{file} has no flow {function}")


FOREIGN_OPTIONS = {"--head", "--nproc-per-node", "--max-restarts"}
"""Options of Ray and torchrun that our messages name."""


def test_options_and_commands_in_messages_exist(project_root: Path) -> None:
    """What a hint says to type can be typed: options and commands between backticks in the code's own texts."""
    known = FOREIGN_OPTIONS | {"--help", "--version"}
    for _, command in all_commands():
        known |= {option for parameter in command.params for option in parameter.opts}
    for parser in build_parser()._subparsers._group_actions[0].choices.values():  # type: ignore[union-attr]
        known |= {option for action in parser._actions for option in action.option_strings}
    faults = []
    for package in ("storage", "sources", "classifiers", "tokenizer", "mixtures", "pipelines", "trainer"):
        for path in sorted((project_root / package).rglob("*.py")):
            for line, text in strings(ast.parse(path.read_text(encoding="utf-8"))):
                wrong = wrong_mentions(text, known)
                faults += [f"{path.relative_to(project_root)}:{line}: {mention}" for mention in wrong]
    assert not faults


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every string but docstrings; what an f-string fills in becomes `…`."""
    pieces: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            pieces.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            pieces |= set(map(id, node.values))
            yield node.lineno, "".join(piece.value if isinstance(piece, ast.Constant) else "…" for piece in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
            yield node.lineno, node.value


def wrong_mentions(text: str, known: set[str]) -> Iterator[str]:
    for mention in re.findall(r"`([^`]+)`", text):
        yield from (f"`{mention}`" for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", mention) if option not in known)
        named = re.match(r"gristmill ([a-z]+)", mention)
        if named and named[1] not in cli.commands:
            yield f"`{mention}`"

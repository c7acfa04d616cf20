"""`gristmill adopt`: a mixture to train on, from a blend list and shards that somebody else tokenized."""

from __future__ import annotations

from pathlib import Path

import click
from tokenizers import Tokenizer

from mixtures.adopt import Adoption, adopt_blend
from mixtures.blends import read_blend, read_validation
from storage.commit import exclusive
from storage.errors import InputError
from tokenizer.vocabulary import VOCABULARY_FILE, load_tokenizer, write_vocabulary


def adopt_command(
    blend: Path, target: Path, *, tokenizer: Path, end_of_document: str | None, variables: tuple[str, ...], heldout: int
) -> None:
    """Check everything, write the folder, and say what is in it."""
    if heldout < 1:
        raise InputError(f"heldout is {heldout}; it must be at least 1 token")
    entries = read_blend(blend, _variables(variables))
    validation = read_validation(blend, _variables(variables))
    loaded = load_tokenizer(tokenizer, end_of_document=end_of_document)
    facts = {name: getattr(loaded.vocabulary, name) for name in ("size", "end_of_document", "dtype")}
    decode = Tokenizer.from_str(loaded.data.decode()).decode
    adoption = Adoption(target=target, heldout=heldout, vocabulary=facts, decode=decode)
    with exclusive(target):
        if (target / VOCABULARY_FILE).exists():
            raise InputError("there is a mixture here already", at=str(target), hint="name a new folder")
        written = adopt_blend(entries, adoption, validation)
        write_vocabulary(target, loaded)
    total = sum(row["weight"] for row in written["train"])
    for row in written["train"]:
        click.echo(f"{100 * row['weight'] / total:6.2f} %  {row['tokens']:>16,}  {row['source']}")
    click.echo(f"{written['train_tokens']:,} tokens in {len(entries)} shards; train on them with")
    click.echo(f"python -m trainer train --data {target} --preset small --out CHECKPOINTS")


def _variables(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise InputError(f"`--set {item}` names no value", hint="write `--set NAME=VALUE`")
        found[name] = value
    return found

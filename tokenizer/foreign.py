"""Tokenizers that come as other files: tiktoken's ranks, and the `vocab.json` with `merges.txt` of older models.

Invariant: the `tokenizer.json` made here gives the ids of the library whose file it is (tests compare them on texts of
all kinds). Such files do not say how text is cut into words: SCHEMES does, found by the file's or the tokenizer class's
name, or named by hand; it is never guessed.
Ids that no token has are taken by `<|reserved_ID|>`: fast tokenizers refuse a vocabulary with gaps.
Trade-off: of a tiktoken file every way to cut an entry into two others becomes a merge, about twice as many merges as
entries, because tiktoken joins whatever neighbours make an entry.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from storage.errors import ModelError
from tokenizer.training import END_OF_DOCUMENT, byte_letters
from tokenizer.words import pattern

TIKTOKEN_SUFFIX = ".tiktoken"
VOCABULARIES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""Pairs of files: Hugging Face's names, and those of GPT-2's own release."""

_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_QWEN = (
    rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How text is cut into words (`split`; none: GPT-2's way, built into the library), and what else a file lacks.

    `specials` are further tokens by their ids; `composed`: text is brought into Unicode's normal form C first.
    """

    split: str | None = None
    specials: Mapping[str, int] = field(default_factory=dict)
    composed: bool = False


def _numbered(first: int, *tokens: str) -> dict[str, int]:
    return {token: first + i for i, token in enumerate(tokens)}


_FIM = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
_TALK = (END_OF_DOCUMENT, "<|im_start|>", "<|im_end|>")
SCHEMES: Mapping[str, Scheme] = {
    "gpt2": Scheme(specials={END_OF_DOCUMENT: 50256}),
    "cl100k": Scheme(
        split=(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s+\z|\s*[\r\n]|\s+(?!\S)|\s"
        ),
        specials={**_numbered(100257, END_OF_DOCUMENT, *_FIM), "<|endofprompt|>": 100276},
    ),
    "o200k": Scheme(
        split=(
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+(?i:{_CONTRACTIONS})?"
            rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*(?i:{_CONTRACTIONS})?"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        specials={END_OF_DOCUMENT: 199999, "<|endofprompt|>": 200018},
    ),
    "qwen": Scheme(
        split=_QWEN, composed=True, specials=_numbered(151643, *_TALK, *(f"<|extra_{i}|>" for i in range(205)))
    ),
    "qwen2": Scheme(split=_QWEN, composed=True, specials=_numbered(151643, *_TALK)),
    "qwen3.5": Scheme(split=pattern(1), composed=True, specials=_numbered(248044, *_TALK)),
}
"""Ways to cut text, by the names that files and people use."""

_FILES = {
    "gpt2": "gpt2", "r50k_base": "gpt2", "cl100k_base": "cl100k", "o200k_base": "o200k", "qwen": "qwen",
    "qwen3_5": "qwen3.5", "qwen3_6": "qwen3.5",
}  # fmt: skip
_CLASSES = {
    "GPT2Tokenizer": "gpt2", "GPTNeoTokenizer": "gpt2", "CodeGenTokenizer": "gpt2", "RobertaTokenizer": "gpt2",
    "Qwen2Tokenizer": "qwen2",
}  # fmt: skip


def is_foreign(path: Path) -> bool:
    """Whether this is a tiktoken file, or a folder with a vocabulary and merges, and so for `read_foreign`."""
    return path.suffix == TIKTOKEN_SUFFIX or (path.is_dir() and _vocabulary_in(path) is not None)


def foreign_files(path: Path) -> list[Path]:
    """The files that `read_foreign` reads."""
    if not path.is_dir():
        return [path]
    names = [*(_vocabulary_in(path) or ()), "tokenizer_config.json", "added_tokens.json"]
    return [path / name for name in names if (path / name).is_file()]


def read_foreign(path: Path, *, scheme: str | None = None) -> bytes:
    """The `tokenizer.json` of a tiktoken file, or of a folder with a vocabulary and merges.

    `scheme` is one of SCHEMES; without it the names of files and classes tell. Raises ModelError when they do not,
    and for a file that is not what its name says.
    """
    try:
        tokenizer = _from_folder(path, scheme) if path.is_dir() else _from_tiktoken(path, scheme)
    except OSError as error:
        raise ModelError(f"there is no tokenizer to read: {error.strerror}", at=str(error.filename or path)) from error
    return str(tokenizer.to_str()).encode()


def _scheme(name: str | None, found: str | None, at: Path) -> Scheme:
    chosen = name or found
    if chosen is not None and chosen in SCHEMES:
        return SCHEMES[chosen]
    what = f"there is no scheme {name!r}" if name else "nothing here says how this tokenizer cuts text into words"
    raise ModelError(what, at=str(at), hint=f"name the scheme that it was trained with: {', '.join(SCHEMES)}")


def _from_tiktoken(file: Path, scheme: str | None) -> Tokenizer:
    ranks = _read_ranks(file)
    chosen = _scheme(scheme, _FILES.get(file.name.removesuffix(TIKTOKEN_SUFFIX)), file)
    letters = byte_letters()
    names = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [(names[left], names[right]) for left, right in _merges(ranks)]
    vocabulary = {names[token]: rank for token, rank in ranks.items()}
    return _assemble(vocabulary, merges, chosen, _specials_after(vocabulary, chosen), ignore_merges=True)


def _read_ranks(file: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ModelError(
                "this line is not a token in base64 and its rank",
                at=f"{file}:{number}",
                hint="give a file of tiktoken's: one `aGVsbG8= 15339` a line",
            ) from error
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ModelError(
            f"{len(missing)} of the 256 bytes have no rank here, 0x{missing[0]:02x} first: some texts have no ids",
            at=str(file),
            hint="give the whole file; it may have been cut short",
        )
    return ranks


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of entries that makes a third, in the order of the third's rank; the longest left part first."""
    for token in sorted(ranks, key=ranks.__getitem__):
        for cut in range(len(token) - 1, 0, -1):
            left, right = token[:cut], token[cut:]
            if left in ranks and right in ranks:
                yield left, right


def _from_folder(folder: Path, scheme: str | None) -> Tokenizer:
    names = _vocabulary_in(folder)
    assert names is not None
    vocabulary = _read_json(folder / names[0])
    merges = _read_merges(folder / names[1])
    config = _read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    kind = str(config.get("tokenizer_class", "GPT2Tokenizer")).removesuffix("Fast")
    chosen = _scheme(scheme, _CLASSES.get(kind), folder)
    _check_merges(vocabulary, merges, folder / names[1])
    own = {token: vocabulary[token] for token in chosen.specials if token in vocabulary}
    specials = (own or _specials_after(vocabulary, chosen)) | _added_tokens(folder, config)
    return _assemble(vocabulary, merges, chosen, specials)


def _vocabulary_in(folder: Path) -> tuple[str, str] | None:
    return next((pair for pair in VOCABULARIES if all((folder / name).is_file() for name in pair)), None)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_bytes())
    except ValueError as error:
        raise ModelError(f"this is not JSON: {error}", at=str(file)) from error
    if not isinstance(values, dict):
        raise ModelError("this file holds no object of names and values", at=str(file))
    return values


def _read_merges(file: Path) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(file.read_text("utf-8").split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        left, space, right = line.rstrip("\r").partition(" ")
        if not (left and space and right) or " " in right:
            raise ModelError("this line is not two entries with a space between", at=f"{file}:{number}")
        merges.append((left, right))
    return merges


def _check_merges(vocabulary: Mapping[str, Any], merges: list[tuple[str, str]], file: Path) -> None:
    for left, right in merges:
        for entry in (left, right, left + right):
            if entry not in vocabulary:
                raise ModelError(
                    f"the merge of {left!r} and {right!r} needs the entry {entry!r}, which the vocabulary lacks",
                    at=str(file),
                    hint="the two files belong to different tokenizers, or one was cut short",
                )


def _added_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, int]:
    """The tokens beside the vocabulary, from `added_tokens.json` and the configuration."""
    file = folder / "added_tokens.json"
    added = {str(token): int(number) for token, number in (_read_json(file) if file.is_file() else {}).items()}
    for number, token in config.get("added_tokens_decoder", {}).items():
        added[token["content"]] = int(number)
    return added


def _specials_after(vocabulary: Mapping[str, int], scheme: Scheme) -> dict[str, int]:
    """The scheme's own, where its vocabulary ends right before them; else an end of document after the entries."""
    size = max(vocabulary.values()) + 1
    if size <= min(scheme.specials.values()) <= size + 1:
        return dict(scheme.specials)
    return {END_OF_DOCUMENT: size}


def _assemble(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    scheme: Scheme,
    specials: Mapping[str, int],
    *,
    ignore_merges: bool = False,
) -> Tokenizer:
    free = {number: token for token, number in specials.items()}
    taken = {number: token for token, number in vocabulary.items() if number in free and token != free[number]}
    if taken:
        number, token = next(iter(taken.items()))
        raise ModelError(f"the special token {free[number]!r} has the id {number}, which is the entry {token!r}")
    used = {*vocabulary.values(), *free}
    free |= {number: f"<|reserved_{number}|>" for number in range(max(used)) if number not in used}
    entries = vocabulary | {token: number for number, token in free.items()}
    tokenizer = Tokenizer(models.BPE(vocab=entries, merges=merges, ignore_merges=ignore_merges))
    if scheme.composed:
        tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=scheme.split is None)
    if scheme.split is None:
        tokenizer.pre_tokenizer = byte_level
    else:
        split = pre_tokenizers.Split(Regex(scheme.split), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for _, token in sorted(free.items())]
    )
    return tokenizer

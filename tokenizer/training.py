"""Training a byte-level BPE: words are counted and merges learned by kernels, or all of it by Hugging Face's trainer.

Invariant: the `tokenizer.json` is that of `tokenizers`, byte for byte. Both train on the head of the corpus first
(512 KB, and texts on which trainers were seen to differ); kernels that differ there do not get to work. The same texts
give the same bytes for any order, cut into batches, or number of threads (the kernels use one).
Trade-off: 3.2 core-seconds instead of 26.5 for 100 MB of text and code and 32,768 entries; one of them is the check.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from storage.errors import InputError
from tokenizer.merges import learn_merges
from tokenizer.pair_kernels import Limits
from tokenizer.samples import hard_samples
from tokenizer.words import WordCounter, pattern

END_OF_DOCUMENT = "<|endoftext|>"
CHECKED_BYTES = 512_000
"""How much of the corpus both trainers see before one of them is chosen."""
LONG_TEXT = 20_000
"""Characters of a text that are checked: Hugging Face's trainer takes minutes for a word of half a million letters."""
MOST_DIGITS = 9


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a vocabulary is trained. `size` counts all entries; a small corpus gives fewer."""

    size: int = 32_768
    min_frequency: int = 2
    max_token_bytes: int = 64
    """Longest entry: web text repeats whole sentences, and those are no words."""
    max_digits: int = 1
    """How many digits may stand in one entry; 1 as ChuXin, DeepSeek and Qwen have it, 3 as LLaMA 3."""
    end_of_document: str = END_OF_DOCUMENT
    special_tokens: tuple[str, ...] = ()
    """More tokens that no text becomes, with the ids after the end-of-document token's, which is 0."""

    @property
    def specials(self) -> tuple[str, ...]:
        return (self.end_of_document, *self.special_tokens)


def train_tokenizer(texts: Iterable[pa.StringArray], config: TrainingConfig) -> bytes:
    """Train a byte-level BPE on batches of texts and return its `tokenizer.json`.

    Every text can be encoded and comes back unchanged: all 256 bytes are entries, nothing is normalized.
    Raises InputError when there is no text, `size` cannot hold the bytes, or the special tokens are not distinct.
    """
    _check(config)
    batches = iter(texts)
    head = _take_head(batches)
    fast = _is_worth_checking(head) and _kernels_agree(head, config)
    return (train_by_kernels if fast else train_by_reference)(chain(head, batches), config)


def _take_head(batches: Iterator[pa.StringArray]) -> list[pa.StringArray]:
    """The first batches, of CHECKED_BYTES or all there are. Raises InputError when there is no text."""
    head, size = [], 0
    for batch in batches:
        head.append(batch)
        size += pc.sum(pc.binary_length(batch)).as_py() or 0
        if size >= CHECKED_BYTES:
            break
    if size == 0:
        raise InputError(
            "there is no text to train a vocabulary on",
            hint="look at the report's funnel for what dropped the documents, or name a `tokenizer.json`",
        )
    return head


def _is_worth_checking(head: list[pa.StringArray]) -> bool:
    """A small corpus is trained on sooner than both trainers are compared on it, unless its words may be long."""
    lengths = pc.binary_length(pa.chunked_array(head))
    return bool(pc.sum(lengths).as_py() >= CHECKED_BYTES or pc.max(lengths).as_py() >= CHECKED_BYTES // 4)


def _check(config: TrainingConfig) -> None:
    specials = config.specials
    if len(set(specials)) < len(specials) or "" in specials:
        raise InputError(
            f"the special tokens {', '.join(map(repr, specials))} are not distinct, or one of them is empty",
            hint="name each once; the end-of-document token is one of them already",
        )
    if config.size < 256 + len(specials):
        raise InputError(
            f"a vocabulary of {config.size} entries cannot hold the 256 bytes and {', '.join(map(repr, specials))}",
            hint=f"ask for {256 + len(specials)} entries or more; 8,000 suits a small corpus",
        )
    if not 1 <= config.max_digits <= MOST_DIGITS or config.max_token_bytes < 2:
        raise InputError(
            f"an entry of {config.max_digits} digits or {config.max_token_bytes} bytes at most cannot be trained",
            hint=f"`max_digits` goes from 1 to {MOST_DIGITS}, `max_token_bytes` from 2 on",
        )


def _kernels_agree(head: list[pa.StringArray], config: TrainingConfig) -> bool:
    """Whether both trainers make the same file of the corpus' head and the hard samples."""
    checked = [pa.array(hard_samples() * 2), *_first_bytes(head)]
    try:
        return train_by_kernels(checked, config) == train_by_reference(checked, config)
    except Exception:  # whatever it is that the kernels raise, Hugging Face's trainer goes on without them
        return False


def _first_bytes(batches: Iterable[pa.StringArray]) -> Iterator[pa.StringArray]:
    """The beginnings of the first texts, CHECKED_BYTES of them."""
    left = CHECKED_BYTES
    for batch in batches:
        for text in batch:
            part = (text.as_py() or "")[:LONG_TEXT]
            left -= len(part.encode())
            yield pa.array([part])
            if left <= 0:
                return


def train_by_kernels(batches: Iterable[pa.StringArray], config: TrainingConfig) -> bytes:
    """The `tokenizer.json` of all texts, by our own counter and trainer."""
    counter = WordCounter(config.max_digits)
    for batch in batches:
        counter.add(batch)
    letters = byte_letters()
    names, entries = _before_merges(config, letters)
    limits = Limits(config.size, config.min_frequency, config.max_token_bytes)
    learned, merges = learn_merges(counter.words(), entries, limits)
    names += ["".join(letters[byte] for byte in entry) for entry in learned[len(names) :]]
    model = models.BPE(
        vocab={name: identifier for identifier, name in enumerate(names)},
        merges=[(names[left], names[right]) for left, right in merges],
    )
    tokenizer = _around(model, config)
    tokenizer.add_special_tokens(_added(config))
    return str(tokenizer.to_str(pretty=True)).encode()


def _before_merges(config: TrainingConfig, letters: tuple[str, ...]) -> tuple[list[str], list[bytes]]:
    """Names and bytes of the entries before the first merge: special tokens, then the bytes in order of their letters.

    A special token whose letters all stand for bytes is what a merge of these bytes leads to; others have no bytes.
    """
    byte_of = {letter: byte for byte, letter in enumerate(letters)}
    names = [*config.specials, *(letter for letter in sorted(letters) if letter not in config.specials)]
    spelled = [[byte_of.get(letter) for letter in name] for name in names]
    return names, [bytes(b for b in row if b is not None) if None not in row else b"" for row in spelled]


def byte_letters() -> tuple[str, ...]:
    """The letter of each byte in a `tokenizer.json`: its own where that can be seen, and others from U+0100 on."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in seen else next(hidden)) for byte in range(256))


def train_by_reference(batches: Iterable[pa.StringArray], config: TrainingConfig) -> bytes:
    """The `tokenizer.json` of all texts, by Hugging Face's trainer."""
    tokenizer = _around(models.BPE(), config)
    trainer = trainers.BpeTrainer(
        vocab_size=config.size,
        min_frequency=config.min_frequency,
        max_token_length=config.max_token_bytes + 1,  # the library's own limit is exclusive
        special_tokens=_added(config),
        initial_alphabet=sorted(byte_letters()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.as_py() or "" for batch in batches for text in batch), trainer)
    return str(tokenizer.to_str(pretty=True)).encode()


def _added(config: TrainingConfig) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in config.specials]


def _around(model: models.BPE, config: TrainingConfig) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern(config.max_digits)), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer

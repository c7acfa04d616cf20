"""Mixture folders of given texts, with a tokenizer that splits numbers into their digits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from storage.megatron import IndexedWriter, token_dtype

END = "<|endoftext|>"
PADDED = 512


def write_texts(folder: Path, train: Sequence[str], held: Sequence[str], *, like: Path | None = None) -> Path:
    """One training shard and one held-out source; the vocabulary of the mixture `like`, or one of the texts' own."""
    folder.mkdir()
    tokenizer = Tokenizer.from_file(str(like / "tokenizer.json")) if like else learn_tokenizer(train[:300])
    tokens = {}
    for name, texts in (("train/a-0000", train), ("heldout/a-0000", held)):
        with IndexedWriter(folder / name, token_dtype(tokenizer.get_vocab_size())) as writer:
            rows = [[*encoded.ids, 0] for encoded in tokenizer.encode_batch(list(texts))]
            for row in rows:
                writer.add(row)
        tokens[name] = sum(map(len, rows))
    tokenizer.save(str(folder / "tokenizer.json"))
    heldout = {"prefixes": ["heldout/a-0000"], "bytes": sum(len(text.encode()) for text in held)}
    blend = {
        "format_version": 1,
        "train": [{"weight": 1.0, "prefix": "train/a-0000", "source": "a"}],
        "heldout": {"a": heldout},
        "mixture": hashlib.sha256("".join(train).encode()).hexdigest()[:32],
    }
    vocabulary = {
        "format_version": 1,
        "size": tokenizer.get_vocab_size(),
        "padded_size": PADDED,
        "end_of_document": 0,
        "dtype": "uint16",
        "sha256": hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(),
    }
    (folder / "blend.json").write_text(json.dumps(blend))
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    return folder


def learn_tokenizer(texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_of])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner = trainers.BpeTrainer(vocab_size=400, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, learner)
    return tokenizer

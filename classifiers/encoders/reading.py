"""Texts in blocks through a tokenizer and on to a model; for a GPU the next block is tokenized in a thread ahead.

One block ahead and no more: a slow model holds the tokenizer up, not the other way round. On the CPU both share the
worker's threads, so there is nothing to overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

ROWS_AT_ONCE = 4096
"""Texts in Python's hands at a time: 8 MB of characters at 256 tokens."""

Tokens = TypeVar("Tokens")


def tokenized_blocks(
    tokenize: Callable[[pa.StringArray], Tokens], texts: pa.StringArray, *, device: str
) -> Iterator[Tokens]:
    """What `tokenize` makes of texts without nulls, block by block."""
    blocks = (texts.slice(start, ROWS_AT_ONCE) for start in range(0, len(texts), ROWS_AT_ONCE))
    return map(tokenize, blocks) if device == "cpu" else _ahead(tokenize, blocks)


def _ahead(tokenize: Callable[[pa.StringArray], Tokens], blocks: Iterator[pa.StringArray]) -> Iterator[Tokens]:
    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as thread:
        coming = None
        for block in blocks:
            last, coming = coming, thread.submit(tokenize, block)
            if last is not None:
                yield last.result()
        if coming is not None:
            yield coming.result()

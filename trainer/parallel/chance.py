"""Chance in training (dropout) as a function of words: the seed, the step, the micro-batch, the stage.

So resuming needs no random states, and any number of processes draws for a micro-batch what one would.
"""

from __future__ import annotations

import hashlib

import torch


def seed_chance(words: str) -> None:
    """Draw from now on what depends on every character of `words`, on CPU and GPU."""
    torch.manual_seed(int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest()) >> 1)

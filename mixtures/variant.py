"""A mixture folder with other weights: the shards, held-out texts and vocabulary of another, its sources in new shares.

Nothing is copied but small JSON: shards are named where they lie, relative to the new folder. What is trained on
several such variants is measured on the same texts, so the models can be compared.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.identity import fingerprint

BLEND_FILE = "blend.json"
COPIED = ("vocabulary.json", "tokenizer.json")


def write_variant(mixture: Path, weights: Mapping[str, float], target: Path) -> Path:
    """Write the mixture folder `target`, which trains on each source by its weight (relative, above 0).

    A source's weight is shared by its shards as their tokens are. Raises DatasetError where `mixture` does not train on
    a source.
    """
    blend = json.loads((mixture / BLEND_FILE).read_bytes())
    tokens = Counter[str]()
    for row in blend["train"]:
        tokens[row["source"]] += row["tokens"]
    if missing := [name for name in weights if name not in tokens]:
        raise DatasetError(f"the mixture does not train on `{missing[0]}`", at=str(mixture / BLEND_FILE))
    target.mkdir(parents=True, exist_ok=True)
    back = os.path.relpath(mixture, target)
    values = {
        **blend,
        "mixture": fingerprint({"of": blend.get("mixture"), "weights": dict(weights)}),
        "train": [
            {
                **row,
                "prefix": os.path.join(back, row["prefix"]),
                "weight": weights[row["source"]] * row["tokens"] / tokens[row["source"]],
            }
            for row in blend["train"]
            if row["source"] in weights
        ],
        "heldout": {
            name: {**row, "prefixes": [os.path.join(back, prefix) for prefix in row["prefixes"]]}
            for name, row in blend["heldout"].items()
        },
    }
    for name in COPIED:
        shutil.copyfile(mixture / name, target / name)
    write_atomically(target / BLEND_FILE, (json.dumps(values, indent=1) + "\n").encode())
    return target

"""A mixture of one source of another mixture: the same held-out texts and vocabulary, a part of the training shards.

Nothing is copied but small JSON: shards are named where they lie, relative to the new folder. What is trained on each
of several such subsets is measured on the same texts, so the models can be compared.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.identity import fingerprint

BLEND_FILE = "blend.json"
COPIED = ("vocabulary.json", "tokenizer.json")


def write_subset(mixture: Path, source: str, target: Path) -> Path:
    """Write the mixture folder `target`; raises DatasetError where `mixture` does not train on the source."""
    blend = json.loads((mixture / BLEND_FILE).read_bytes())
    train = [row for row in blend["train"] if row["source"] == source]
    if not train:
        raise DatasetError(f"the mixture does not train on `{source}`", at=str(mixture / BLEND_FILE))
    target.mkdir(parents=True, exist_ok=True)
    back = os.path.relpath(mixture, target)
    values = {
        **blend,
        "mixture": fingerprint({"of": blend.get("mixture"), "source": source}),
        "train": [{**row, "prefix": os.path.join(back, row["prefix"])} for row in train],
        "heldout": {
            name: {**row, "prefixes": [os.path.join(back, prefix) for prefix in row["prefixes"]]}
            for name, row in blend["heldout"].items()
        },
    }
    for name in COPIED:
        shutil.copyfile(mixture / name, target / name)
    write_atomically(target / BLEND_FILE, (json.dumps(values, indent=1) + "\n").encode())
    return target

"""A mixture folder with other weights or other held-out texts: the shards and vocabulary of another mixture.

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
from typing import Any

from storage.commit import write_atomically
from storage.errors import DatasetError
from storage.identity import fingerprint

BLEND_FILE = "blend.json"
COPIED = ("vocabulary.json", "tokenizer.json")


def write_variant(
    mixture: Path, weights: Mapping[str, float] | None, target: Path, *, heldout: Path | None = None
) -> Path:
    """Write the mixture folder `target`, which trains on each source by its weight (relative, above 0; None: as is).

    A source's weight is shared by its shards as their tokens are. `heldout` is the mixture whose held-out texts count
    (default: its own); both must have one vocabulary. Raises DatasetError where `mixture` does not train on a source.
    """
    blend, other = read_blend(mixture), read_blend(heldout or mixture)
    tokens = tokens_by_source(blend)
    given = weights or {name: float(count) for name, count in tokens.items()}
    if missing := [name for name in given if name not in tokens]:
        raise DatasetError(f"the mixture does not train on `{missing[0]}`", at=str(mixture / BLEND_FILE))
    if heldout:
        _require_one_vocabulary(mixture, heldout)
    target.mkdir(parents=True, exist_ok=True)
    back, aside = (os.path.relpath(folder, target) for folder in (mixture, heldout or mixture))
    measured = {"heldout": other.get("mixture")} if heldout else {}
    values = {
        **blend,
        "mixture": fingerprint({"of": blend.get("mixture"), "weights": dict(given), **measured}),
        "train": [
            {
                **row,
                "prefix": os.path.join(back, row["prefix"]),
                "weight": given[row["source"]] * row["tokens"] / tokens[row["source"]],
            }
            for row in blend["train"]
            if row["source"] in given
        ],
        "heldout": {
            name: {**row, "prefixes": [os.path.join(aside, prefix) for prefix in row["prefixes"]]}
            for name, row in other["heldout"].items()
        },
    }
    for name in COPIED:
        shutil.copyfile(mixture / name, target / name)
    write_atomically(target / BLEND_FILE, (json.dumps(values, indent=1) + "\n").encode())
    return target


def read_blend(mixture: Path) -> dict[str, Any]:
    """What a mixture's folder says of itself."""
    values: dict[str, Any] = json.loads((mixture / BLEND_FILE).read_bytes())
    return values


def tokens_by_source(blend: Mapping[str, Any]) -> dict[str, int]:
    """The training tokens of each source, repeats included."""
    tokens = Counter[str]()
    for row in blend["train"]:
        tokens[row["source"]] += row["tokens"]
    return dict(tokens)


def _require_one_vocabulary(mixture: Path, heldout: Path) -> None:
    one, other = (json.loads((folder / COPIED[0]).read_bytes()).get("sha256") for folder in (mixture, heldout))
    if one != other:
        raise DatasetError(
            "the held-out texts are in another vocabulary than the training texts",
            at=str(heldout / COPIED[0]),
            hint="make both mixtures with one tokenizer",
        )

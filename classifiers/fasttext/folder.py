"""A fastText classifier with what belongs to it: a folder of model.bin, gristmill.json and README.md, or a file alone.

Invariant: gristmill.json is written last and holds the weights' checksum, so a folder with one is whole; a model whose
weights are others than its preparation was made for is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from classifiers.fasttext.preparation import Preparation, WordPreparer
from storage.commit import write_atomically
from storage.errors import ModelError
from storage.identity import hash_file

WEIGHTS, FACTS, CARD = "model.bin", "gristmill.json", "README.md"
KIND = "fasttext"
FORMAT_VERSION = 1
_HINT = "name a fastText .bin or .ftz file, or a folder that `gristmill fit fasttext` wrote"


@dataclass(frozen=True, kw_only=True)
class SavedFastText:
    """Where a model lies, how text is prepared for it (None: as it is), and the label that its score is of."""

    weights: Path
    facts: Path | None = None
    preparation: Preparation | None = None
    positive: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that can change a score."""
        return tuple(str(path) for path in (self.weights, self.facts) if path)

    def open_preparation(self) -> Callable[[pa.Array], pa.Array]:
        return WordPreparer(self.preparation) if self.preparation is not None else lambda texts: texts


def is_fasttext_folder(path: Path) -> bool:
    """Whether a folder says that it holds a fastText model."""
    try:
        return bool(json.loads((path / FACTS).read_bytes())["kind"] == KIND)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_fasttext(path: Path) -> SavedFastText:
    """The model at `path`, a file or a folder. Raises ModelError where there is none, or it is not whole."""
    if path.is_file():
        return SavedFastText(weights=path)
    if not path.is_dir():
        raise ModelError("there is no fastText model", at=str(path), hint=_HINT)
    try:
        facts: dict[str, Any] = json.loads((path / FACTS).read_bytes())
        kind, version, checksum = facts["kind"], facts["format_version"], facts["weights_sha256"]
        preparation = facts["preparation"] and Preparation(**{k: tuple(v) for k, v in facts["preparation"].items()})
        positive = facts["positive"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"the folder holds no fastText model: {error!r}", at=str(path), hint=_HINT) from error
    if kind != KIND or version != FORMAT_VERSION:
        raise ModelError(
            f"the folder holds a model of kind `{kind}`, format {version}; this reads `{KIND}`, {FORMAT_VERSION}",
            at=str(path / FACTS),
            hint=_HINT,
        )
    weights = path / WEIGHTS
    if not weights.is_file() or hash_file(weights) != checksum:
        raise ModelError("the weights are not those that were trained", at=str(weights), hint="train the model again")
    return SavedFastText(weights=weights, facts=path / FACTS, preparation=preparation, positive=positive)


def save_facts(
    folder: Path, *, preparation: Preparation | None, positive: str | None, facts: Mapping[str, Any]
) -> None:
    """Seal a folder whose weights and card are there already."""
    sealed = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "weights_sha256": hash_file(folder / WEIGHTS),
        "positive": positive,
        "preparation": asdict(preparation) if preparation is not None else None,
        **facts,
    }
    write_atomically(folder / FACTS, (json.dumps(sealed, indent=1, ensure_ascii=False) + "\n").encode())

"""A trained model opened from its checkpoint: all that evaluating, generating and exporting need, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import ModelError
from trainer.checkpoints.folders import find_checkpoint
from trainer.data.mixture import TOKENIZER_FILE, Vocabulary, read_vocabulary
from trainer.models.contract import LanguageModel
from trainer.models.kinds import build_model, read_config
from trainer.optimizer import load_model
from trainer.registry.search import located
from trainer.settings import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Trained:
    """`folder` is the run's, with the tokenizer beside the checkpoints; `checkpoint` is the folder of this one."""

    folder: Path
    checkpoint: Path
    model: LanguageModel
    training: TrainingConfig
    vocabulary: Vocabulary
    step: int
    tokens: int

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / TOKENIZER_FILE

    def refuse_another_vocabulary(self, vocabulary: Vocabulary, folder: Path) -> None:
        """Raise ModelError unless the tokens in `folder` were made by the tokenizer that the model learned."""
        if vocabulary.sha256 != self.vocabulary.sha256:
            raise ModelError(
                f"the model learned tokenizer {self.vocabulary.sha256[:12]}…, these shards are of "
                f"{vocabulary.sha256[:12]}…",
                at=str(folder),
                hint="evaluate on a mixture of the same vocabulary",
            )


def open_trained(path: Path) -> Trained:
    """The model in `path`: a run's checkpoint folder (its latest sound one) or one `iter_…` folder of it.

    Raises ModelError when there is none, or when it was written by another version.
    """
    checkpoint = find_checkpoint(located(path))
    run: Mapping[str, Any] = checkpoint.state["run"]
    try:
        model = build_model(read_config(run["model"]))
        training = TrainingConfig(**run["training"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{checkpoint.folder.name} was written by another version: {error}", at=str(path)) from error
    load_model(model, checkpoint.model())
    folder = checkpoint.folder.parent
    return Trained(
        folder=folder,
        checkpoint=checkpoint.folder,
        model=model,
        training=training,
        vocabulary=read_vocabulary(folder),
        step=checkpoint.step,
        tokens=int(checkpoint.state["tokens"]),
    )

"""Hugging Face models loaded without running foreign code and without inventing weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from classifiers.encoders.models import ModelFiles
from storage.errors import ModelError


def open_model(auto_class: Any, files: ModelFiles) -> tuple[Any, list[str]]:
    """The model in float32 as `auto_class` (AutoModel, …) builds it, and the names of weights that the folder lacks.

    Raises ModelError for what cannot be loaded.
    """
    import torch

    with quiet_transformers():
        try:
            model, report = auto_class.from_pretrained(
                files.folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # config, weights and safetensors each raise kinds of their own
            raise unloadable(files, error) from error
    return model.eval(), sorted(report["missing_keys"])


def refuse_missing(files: ModelFiles, missing: list[str], ignored: Callable[[str], bool] = lambda _: False) -> None:
    """Raises ModelError where weights are missing: they would be random numbers."""
    missing = [name for name in missing if not ignored(name)]
    if missing:
        raise ModelError(
            f"{len(missing)} weights are missing from the checkpoint, the first of them `{missing[0]}`",
            at=str(files.folder),
            hint="config.json and weights are of different models: download the model again",
        )


def unloadable(files: ModelFiles, error: Exception) -> ModelError:
    """What transformers, torch or safetensors raised, in the house's words."""
    reason = str(error).partition("\n")[0][:300] or type(error).__name__
    return ModelError(
        f"the model cannot be loaded: {reason}",
        at=str(files.folder),
        hint="give the folder of a Hugging Face encoder with safetensors weights and no code of its own",
    )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar and no load report while a model opens: what matters of it is checked by whoever opens it."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()

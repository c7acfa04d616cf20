"""A published or distilled text classifier opened for work: texts in, raw scores or class probabilities out.

Any Hugging Face sequence classifier by folder or hub name (FineWeb-Edu's, Nemotron-edu and Mixtral-edu are regressions
of one logit), and the layout of nvidia's domain classifiers. On the CPU a text's scores do not depend on the other
texts, bit for bit; on a GPU and in bfloat16 they do as vectors do (see `encoder.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifiers.encoders.backbone_classifier import open_backbone_classifier
from classifiers.encoders.batches import Batches
from classifiers.encoders.calibration import Calibration, read_calibration
from classifiers.encoders.devices import choose_device, choose_dtype, set_threads
from classifiers.encoders.forwards import Forward, PackedForward, PaddedForward
from classifiers.encoders.models import ModelFiles, find_classifier
from classifiers.encoders.opening import open_model, refuse_missing
from classifiers.encoders.packed import pack_encoder
from classifiers.encoders.reading import tokenized_blocks
from classifiers.encoders.tokens import TextTokenizer, TokenRows, pack_rows
from storage.errors import ModelError, RecipeError

if TYPE_CHECKING:
    import torch

USUAL_TOKENS = 512
"""What FineWeb-Edu's, Nemotron's and nvidia's classifiers read of a document."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """What can change a score, beside the model's files.

    `max_tokens` counts special tokens, longer documents are cut; None is 512, or the model's context where that is
    shorter. `dtype`, `threads` and `batch_tokens` are as in EncoderConfig.
    """

    max_tokens: int | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 1
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_tokens", "threads", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"the classifier's {name} is {value}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class TextClassifier:
    """`labels`: class names in the order of the columns; () for a regression. Make one with `open_classifier`."""

    labels: tuple[str, ...]
    tokenize: TextTokenizer
    batches: Batches
    calibration: Calibration = Calibration()

    def score(self, texts: pa.StringArray) -> npt.NDArray[np.float32]:
        """Of texts without nulls float32[N], a regression's values, or [N, classes], probabilities.

        They are what the model says, and of one that was distilled here that, calibrated.
        """
        return score_by_all({"": self}, texts)[""]

    def score_tokens(self, rows: TokenRows) -> npt.NDArray[np.float32]:
        """The same of token ids with their special tokens."""
        scores = self.batches(rows)
        return self.calibration.apply(scores if self.labels else scores[:, 0])


def score_by_all(
    classifiers: Mapping[str, TextClassifier], texts: pa.StringArray
) -> dict[str, npt.NDArray[np.float32]]:
    """Each classifier's `score` of the texts, which are read once: and tokenized once for all of one tokenizer."""
    blocks: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in classifiers}
    device = next(iter(classifiers.values())).batches.device.type
    for rows in tokenized_blocks(_TokenizeForAll(classifiers), texts, device=device):
        for name, classifier in classifiers.items():
            blocks[name].append(classifier.score_tokens(rows[classifier.tokenize.identity]))
    nothing = pack_rows([])
    return {name: np.concatenate([*blocks[name], classifiers[name].score_tokens(nothing)]) for name in classifiers}


class _TokenizeForAll:
    """Texts to rows by tokenizer, for every tokenizer that the classifiers have between them."""

    def __init__(self, classifiers: Mapping[str, TextClassifier]) -> None:
        self._tokenizers = {each.tokenize.identity: each.tokenize for each in classifiers.values()}

    def __call__(self, texts: pa.StringArray) -> dict[str, TokenRows]:
        return {identity: tokenize(texts) for identity, tokenize in self._tokenizers.items()}


def classifier_files(model: str) -> tuple[str, ...]:
    """Every file that can change a score. Raises ModelError for what is no classifier, or unsafe to load."""
    return tuple(str(path) for path in find_classifier(model).paths)


def open_classifier(
    model: str, config: ClassifierConfig | None = None, *, device: torch.device | None = None
) -> TextClassifier:
    """A classifier by folder or hub name, on `device`: None is a GPU where there is one.

    Raises ModelError for what is no classifier, is unsafe (pickles, code of its own), or cannot take `max_tokens`.
    """
    config = config or ClassifierConfig()
    files = find_classifier(model)
    device = device or choose_device()
    set_threads(config.threads)
    module = _open_module(files)
    tokenize = TextTokenizer(files, _choose_max_tokens(config, files, module.config))
    tokenize.check_vocabulary(module.get_input_embeddings().num_embeddings, files)
    width = len(module.config.id2label)
    forward = _open_forward(module, choose_dtype(config.dtype, device), device)
    labels = tuple(str(module.config.id2label[i]) for i in range(width)) if width > 1 else ()
    return TextClassifier(
        labels, tokenize, Batches(forward, width, config.batch_tokens), read_calibration(files.folder)
    )


def _open_module(files: ModelFiles) -> Any:
    from transformers import AutoModelForSequenceClassification

    if files.backbone:
        return open_backbone_classifier(files)
    module, missing = open_model(AutoModelForSequenceClassification, files)
    if any(name.startswith(("classifier.", "score.")) for name in missing):
        raise ModelError(
            f"the model is an encoder without a classifier on it: it has no `{missing[0]}`",
            at=str(files.folder),
            hint="give a sequence classifier, or score with this encoder and labels of your own",
        )
    refuse_missing(files, missing)
    return module


def _choose_max_tokens(config: ClassifierConfig, files: ModelFiles, described: Any) -> int:
    limits = (files.max_tokens, getattr(described, "max_position_embeddings", None) if files.backbone else None)
    limit = min((each for each in limits if each), default=None)
    if config.max_tokens is None:
        return min(USUAL_TOKENS, limit or USUAL_TOKENS)
    if limit is not None and config.max_tokens > limit:
        raise ModelError(
            f"max_tokens is {config.max_tokens}, but the model takes at most {limit}",
            at=str(files.folder),
            hint=f"set `max_tokens: {limit}`, or choose a model with a longer context",
        )
    return config.max_tokens


def _open_forward(module: Any, dtype: torch.dtype, device: torch.device) -> Forward:
    activate, head = _activation(module.config), _first_token_head(module)
    packed = pack_encoder(module.base_model, dtype, device) if head else None
    if head is None or packed is None:
        return PaddedForward(module.to(dtype), device, lambda output, _: activate(output.logits.float()))
    module.to(device)
    return PackedForward(packed, device, lambda states_TD, offsets: activate(_logits(head, states_TD[offsets[:-1]])))


def _first_token_head(module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """From states [B, 1, D] of first tokens to logits, where the architecture is one that reads no others."""
    if module.config.model_type == "bert":
        return lambda states_B1D: module.classifier(module.bert.pooler(states_B1D))  # type: ignore[no-any-return]
    if module.config.model_type in ("roberta", "xlm-roberta", "camembert"):
        return module.classifier  # type: ignore[no-any-return]
    return None


def _logits(head: Callable[[torch.Tensor], torch.Tensor], first_BD: torch.Tensor) -> torch.Tensor:
    """On a CPU row by row: small products in float32 sum in an order that depends on how many rows there are."""
    import torch

    if first_BD.device.type == "cuda":
        return head(first_BD[:, None])
    return torch.cat([head(first_D[None, None]) for first_D in first_BD.unbind()])


def _activation(described: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """From logits to what `TextClassifier.score` gives: raw values, or probabilities of classes."""
    if len(described.id2label) == 1:
        return lambda logits: logits
    if described.problem_type == "multi_label_classification":
        return lambda logits: logits.sigmoid()
    return lambda logits: logits.softmax(-1)

"""The model that is fitted: an encoder by path under a classification head, and its texts as what it is fed.

Invariant: what comes out is a transformers sequence classifier and nothing else, so that anybody can load it. A frozen
encoder reads each text once: where its head looks at the first position alone (BERT, RoBERTa, XLM-R, DeBERTa,
DistilBERT), the states there are kept and the head learns from them, which makes 20 epochs cost little more than one;
that the head sees the same through them is checked on the first text. Other heads read the whole model each epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from classifiers.distillation.settings import EncoderSettings
from classifiers.encoders.forwards import plan_batches
from classifiers.encoders.models import ModelFiles
from classifiers.encoders.opening import quiet_transformers, refuse_missing, unloadable
from classifiers.encoders.tokens import TokenRows

if TYPE_CHECKING:
    import torch

_SAME_LOGITS = 1e-3


def build_model(files: ModelFiles, settings: EncoderSettings, *, classes: Sequence[str], mean: float) -> Any:
    """A sequence classifier in float32 on the CPU, its head drawn by the seed; without classes a regression that begins
    at the mean grade. Raises ModelError."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(settings.seed)
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
            config.update(_head_config(classes))
            model, report = AutoModelForSequenceClassification.from_pretrained(
                files.folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except Exception as error:  # config, weights and safetensors each raise kinds of their own
            raise unloadable(files, error) from error
    body = f"{model.base_model_prefix}."
    refuse_missing(files, sorted(report["missing_keys"]), lambda name: not name.startswith(body) or "pooler" in name)
    if not classes:
        _begin_at(model, mean)
    if settings.frozen:
        freeze(model)
    return model


def _head_config(classes: Sequence[str]) -> dict[str, Any]:
    names = list(classes) or ["LABEL_0"]
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": "single_label_classification" if classes else "regression",
    }


def _begin_at(model: Any, mean: float) -> None:
    import torch

    heads = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module.out_features == 1]
    if heads and heads[-1].bias is not None:
        heads[-1].bias.data.fill_(mean)


def freeze(model: Any) -> None:
    """Nothing of the encoder learns but its pooler, which belongs to the head."""
    for name, parameter in model.base_model.named_parameters():
        parameter.requires_grad = name.startswith("pooler.")


class TokenInputs:
    """Texts as token ids, padded to the longest of each batch; the whole model reads them."""

    def __init__(self, model: Any, rows: TokenRows) -> None:
        self.model = model
        self.lengths = rows.lengths
        self._rows = rows

    def logits(self, rows: Sequence[int]) -> torch.Tensor:
        """float[rows, classes or 1], with gradients where there are any."""
        return self.model(**padded(self.model, self._rows.take(list(rows)))).logits  # type: ignore[no-any-return]


class StateInputs:
    """Texts as the frozen encoder's states of the first position; the head alone reads them."""

    def __init__(self, model: Any, states_ND: torch.Tensor) -> None:
        self.model = model
        self.lengths = np.ones(len(states_ND), np.int64)
        self._states_ND = states_ND

    def logits(self, rows: Sequence[int]) -> torch.Tensor:
        states = self._states_ND[list(rows)].to(self.model.device)[:, None]
        return head_logits(self.model, states)


def head_logits(model: Any, states_B1D: torch.Tensor) -> torch.Tensor:
    """What the model's head says of these states, the encoder under it being passed over."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    body, pooler = model.base_model, getattr(model.base_model, "pooler", None)

    class Kept(torch.nn.Module):
        def forward(self, *_: Any, **__: Any) -> Any:
            pooled = pooler(states_B1D) if pooler is not None else None
            return BaseModelOutputWithPooling(last_hidden_state=states_B1D, pooler_output=pooled)

    setattr(model, model.base_model_prefix, Kept())
    try:
        return model(input_ids=None).logits  # type: ignore[no-any-return]
    finally:
        setattr(model, model.base_model_prefix, body)


def make_inputs(model: Any, rows: TokenRows, settings: EncoderSettings) -> TokenInputs | StateInputs:
    """The form that is read faster and says the same."""
    inputs = TokenInputs(model, rows)
    if not settings.frozen or not len(rows):
        return inputs
    kept = StateInputs(model, _first_states(model, rows, settings.batch_tokens))
    return kept if _agree(inputs, kept) else inputs


def _agree(whole: TokenInputs, kept: StateInputs) -> bool:
    import torch

    kept.model.eval()
    with torch.inference_mode():
        try:
            return bool((whole.logits([0]) - kept.logits([0])).abs().max() < _SAME_LOGITS)
        except (AttributeError, TypeError, ValueError, IndexError, RuntimeError):
            return False  # a head that reads more than the first position


def _first_states(model: Any, rows: TokenRows, batch_tokens: int) -> torch.Tensor:
    import torch

    model.eval()
    states_ND = torch.empty((len(rows), model.config.hidden_size))
    with torch.inference_mode():
        for batch in plan_batches(rows.lengths.tolist(), batch_tokens):
            read = model.base_model(**padded(model, rows.take(batch))).last_hidden_state
            states_ND[batch] = read[:, 0].float().cpu()
    return states_ND.clone()


def padded(model: Any, rows: TokenRows) -> Mapping[str, torch.Tensor]:
    """Ids and mask of a batch on the model's device."""
    import torch

    mask_BT: npt.NDArray[np.bool_] = np.arange(rows.lengths.max()) < rows.lengths[:, None]
    ids_BT = np.full(mask_BT.shape, model.config.pad_token_id or 0, np.int64)
    ids_BT[mask_BT] = rows.ids
    ids, mask = (torch.from_numpy(array).to(model.device) for array in (ids_BT, mask_BT.astype(np.int64)))
    return {"input_ids": ids, "attention_mask": mask}

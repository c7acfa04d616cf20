"""Causal language models opened for scoring, taken apart into a decoder and the matrix that makes logits of its states.

Weights are safetensors or GGUF (a format without code); pickles and models with code of their own are refused. Decoder
and head are compared once with the model's own logits, so a model that changes them after its head (soft caps, scales)
is refused rather than scored wrongly: 20 ms at opening.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifiers.encoders.models import find_model
from classifiers.encoders.opening import quiet_transformers
from storage.errors import ModelError

if TYPE_CHECKING:
    import torch

GGUF = ".gguf"
PROBE_TOKENS = 4
LOGITS_TOLERANCE = 0.02
"""Relative to the largest logit: bfloat16 rounds at 2⁻⁸."""


@dataclass(frozen=True)
class CausalModel:
    """`decode(ids [B, T]) -> states [B, T, D]`; logits are `states @ weight.T + bias`, with `weight` [V, D]."""

    tokenizer: Any
    decoder: Any
    weight: torch.Tensor
    bias: torch.Tensor | None
    max_positions: int | None

    def decode(self, ids_BT: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.decoder(input_ids=ids_BT, use_cache=False).last_hidden_state
        return states

    def compile_layers(self) -> None:
        """Compile the decoder's layers, one graph for all of them; where that fails, torch runs them as they are."""
        import torch

        torch._dynamo.config.suppress_errors = True
        for layer in getattr(self.decoder, "layers", ()):
            layer.compile(dynamic=True)


def model_files(model: str) -> tuple[str, ...]:
    """Every file that can change a loss. Raises ModelError for what is no model, or unsafe to load."""
    if not model.endswith(GGUF):
        return tuple(str(path) for path in find_model(model).paths)
    if not Path(model).expanduser().is_file():
        raise ModelError("there is no such GGUF file", at=model, hint="give the path of a .gguf file")
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise ModelError(
            f"GGUF files are read with packages that are not installed: {', '.join(missing)}",
            at=model,
            hint="pip install -c constraints.txt -e '.[gguf]'",
        )
    return (str(Path(model).expanduser()),)


def open_causal_model(model: str, dtype: torch.dtype, device: torch.device) -> CausalModel:
    """A folder, a hub name or a .gguf file, ready on `device`. Raises ModelError."""
    place = _place(model)
    with quiet_transformers():
        whole = _translated(model, lambda: _load(place, dtype)).eval().to(device)
        tokenizer = _translated(model, lambda: _load_tokenizer(place))
    head = whole.get_output_embeddings()
    opened = CausalModel(
        tokenizer=tokenizer,
        decoder=whole.base_model,
        weight=head.weight.detach(),
        bias=None if head.bias is None else head.bias.detach(),
        max_positions=getattr(whole.config, "max_position_embeddings", None),
    )
    _check_vocabulary(opened, model)
    _check_logits(opened, whole, model)
    return opened


def _place(model: str) -> dict[str, Any]:
    """What `from_pretrained` is told to find the files."""
    (first, *_) = model_files(model)
    if not model.endswith(GGUF):
        return {"pretrained_model_name_or_path": str(find_model(model).folder)}
    return {"pretrained_model_name_or_path": str(Path(first).parent), "gguf_file": Path(first).name}


def _load(place: dict[str, Any], dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    safely = {"use_safetensors": True} if "gguf_file" not in place else {}
    model, report = AutoModelForCausalLM.from_pretrained(
        **place,
        **safely,
        dtype=dtype,
        attn_implementation="sdpa",
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{len(missing)} weights are missing, the first of them `{missing[0]}`")
    return model


def _load_tokenizer(place: dict[str, Any]) -> Any:
    """The model's `tokenizers.Tokenizer`, as transformers sets it up, without padding."""
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(**place, trust_remote_code=False, local_files_only=True)
    if not loaded.is_fast:
        raise ValueError("the tokenizer has no fast form; save it as tokenizer.json")
    backend = loaded.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return backend


def _translated(model: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ModelError:
        raise
    except Exception as error:  # config, weights, GGUF and tokenizers each raise kinds of their own
        reason = str(error).partition("\n")[0][:300] or type(error).__name__
        raise ModelError(
            f"the causal language model cannot be loaded: {reason}",
            at=model,
            hint="give the folder of a Hugging Face causal model with safetensors weights, or a .gguf file",
        ) from error


def _check_vocabulary(opened: CausalModel, model: str) -> None:
    known, size = opened.tokenizer.get_vocab_size(), opened.weight.shape[0]
    if known > size:
        raise ModelError(
            f"the tokenizer has {known} tokens, but the model has logits for {size}",
            at=model,
            hint="tokenizer and weights are of different models: download the model again",
        )


def _check_logits(opened: CausalModel, whole: Any, model: str) -> None:
    import torch

    ids = torch.arange(1, PROBE_TOKENS + 1, device=opened.weight.device).unsqueeze(0) % opened.weight.shape[0]
    with torch.inference_mode():
        theirs = whole(input_ids=ids, use_cache=False).logits.float()
        ours = torch.nn.functional.linear(opened.decode(ids), opened.weight, opened.bias).float()
    if (ours - theirs).abs().max() > LOGITS_TOLERANCE * theirs.abs().max():
        raise ModelError(
            f"`{whole.config.model_type}` changes its logits after the head, which the loss here does not know",
            at=model,
            hint="choose a model of the LLaMA, Qwen, Mistral, GPT-2 or GPT-NeoX families",
        )

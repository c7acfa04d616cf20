"""vLLM loads what the trainer exports and writes, token for token, what the trainer writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models

from tests.vllm.conftest import run
from trainer.checkpoints.trained import Trained
from trainer.data.mixture import Vocabulary
from trainer.exchange.export import export_model
from trainer.models.contract import LanguageModel
from trainer.models.experts import Router
from trainer.models.kinds import build_model, read_config
from trainer.settings import TrainingConfig

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

VOCABULARY, LENGTH, TOKENS = 512, 128, 24
OF_ALL = {"vocabulary_size": VOCABULARY, "hidden_size": 128, "num_heads": 4, "max_positions": LENGTH, "init_std": 0.3}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"num_layers": 3, "num_kv_heads": 2, "ffn_size": 256},
    "olmo2": {"num_layers": 3, "num_kv_heads": 4, "ffn_size": 256, "qk_norm": True, "norm_after": True,
              "tied_embeddings": False},
    "deepseek_v3": {"kind": "deepseek_v3", "num_layers": 3, "kv_latent_size": 512, "qk_size": 128, "qk_rope_size": 64,
                    "v_size": 128, "ffn_size": 256, "num_dense_layers": 1, "expert_ffn_size": 64, "norm_epsilon": 1e-6,
                    "shared_ffn_size": 128, "num_experts": 8, "experts_per_token": 2, "routed_scaling": 2.0,
                    "num_predictors": 1, "tied_embeddings": False},
}  # fmt: skip

LEFT_OUT = {"deepseek_v3": ["-rotary_embedding"]}
"""vLLM 0.32's own kernel of rotary positions on the CPU turns side-by-side pairs of more than one head by wrong angles
(by up to 6 where 1e-6 is right); its plain PyTorch one does not."""


def shaken(name: str) -> LanguageModel:
    model = build_model(read_config({**OF_ALL, **SHAPES[name]}))
    model.initialize(1)
    for module in model.modules():
        if isinstance(module, Router):
            module.bias_E += 0.2 * torch.randn(module.bias_E.shape, generator=torch.Generator().manual_seed(2))
    return model.eval()


def write_tokenizer(folder: Path) -> Path:
    """One entry an id; vLLM wants a tokenizer, and is asked in ids."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    tokenizer.add_special_tokens(["w0"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_greedily(model: LanguageModel, prompt: list[int]) -> tuple[list[int], float]:
    """(the likeliest tokens, the smallest distance of the likeliest to the next)."""
    ids, margin = list(prompt), float("inf")
    with torch.no_grad():
        for _ in range(TOKENS):
            best = model(torch.tensor([ids]), torch.arange(len(ids)).unsqueeze(0))[0, -1].topk(2)
            ids.append(int(best.indices[0]))
            margin = min(margin, float(best.values[0] - best.values[1]))
    return ids[len(prompt) :], margin


@pytest.mark.parametrize("name", SHAPES)
def test_vllm_writes_what_the_trainer_writes(
    name: str, vllm_python: Path, vllm_environment: dict[str, str], project_root: Path, tmp_path: Path
) -> None:
    model = shaken(name)
    folder = write_tokenizer(tmp_path / "run")
    vocabulary = Vocabulary(size=VOCABULARY, padded_size=VOCABULARY, end_of_document=0, dtype="uint16", sha256="")
    facts = {"folder": folder, "checkpoint": folder, "training": TrainingConfig(), "step": 0, "tokens": 0}
    trained = Trained(model=model, vocabulary=vocabulary, **facts)  # type: ignore[arg-type]
    export_model(trained, tmp_path / "theirs")
    generator = torch.Generator().manual_seed(3)
    prompts = [torch.randint(1, VOCABULARY, (length,), generator=generator).tolist() for length in (3, 20, 40)]
    asked = {"model": str(tmp_path / "theirs"), "length": LENGTH, "tokens": TOKENS, "prompts": prompts}
    asked["custom_ops"] = LEFT_OUT.get(name, [])
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    script = project_root / "tests" / "vllm" / "offline_tokens.py"
    run(vllm_python, script, tmp_path / "asked.json", tmp_path / "told.json", env=vllm_environment)
    told = json.loads((tmp_path / "told.json").read_text())
    ours = [write_greedily(model, prompt) for prompt in prompts]
    assert min(margin for _, margin in ours) > 2e-4, "two tokens are too close to call"
    assert told == [tokens for tokens, _ in ours]
    assert len({token for tokens in told for token in tokens}) > 10

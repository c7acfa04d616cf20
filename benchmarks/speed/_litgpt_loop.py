"""litgpt's LLaMA trained as its own pretraining loop does it: Fabric, bf16-mixed, torch.compile, its cross entropy."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.speed._gpt_loop import Shape, cut_batch


class LitGptLoop:
    """One call is one step, and gives its loss. Embeddings are tied, for as many parameters as the others have."""

    def __init__(self, shape: Shape, ffn_size: int, tokens: npt.NDArray[np.uint16]) -> None:
        torch.manual_seed(1)
        lightning: Any = importlib.import_module("lightning")
        litgpt: Any = importlib.import_module("litgpt.model")
        self.cross_entropy: Any = importlib.import_module("litgpt.utils").chunked_cross_entropy
        self.shape, self.tokens = shape, tokens
        config = litgpt.Config(
            block_size=shape.length, n_layer=shape.layers, n_embd=shape.hidden, n_head=shape.heads,
            padded_vocab_size=shape.vocabulary, vocab_size=shape.vocabulary, rotary_percentage=1.0, bias=False,
            parallel_residual=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP", intermediate_size=ffn_size,
        )  # fmt: skip
        self.fabric = lightning.Fabric(devices=1, accelerator="cpu", precision="bf16-mixed")
        model = litgpt.GPT(config)
        model.apply(model._init_weights)
        model.lm_head.weight = model.transformer.wte.weight
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.model = self.fabric.setup(torch.compile(model))
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
        self.optimizer = self.fabric.setup_optimizers(optimizer)

    def __call__(self) -> float:
        tokens, labels = cut_batch(self.tokens, self.shape)
        loss = self.cross_entropy(self.model(tokens), labels)
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.model, self.optimizer, max_norm=1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

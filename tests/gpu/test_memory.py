"""Reading on from a memory on a GPU, in bfloat16 and float32, against reading everything at once on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainer.models.kinds import build_model, read_config
from trainer.models.memory import NOTHING, Memory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
OF_ALL = {"vocabulary_size": 384, "hidden_size": 64, "num_layers": 3, "num_heads": 4, "max_positions": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"num_kv_heads": 2, "ffn_size": 96},
    "gpt_neo": {"ffn_size": 96, "window_size": 6},
    "deepseek_v3": {
        "kv_latent_size": 32, "qk_size": 16, "qk_rope_size": 8, "v_size": 16, "ffn_size": 96, "num_dense_layers": 1,
        "expert_ffn_size": 32, "shared_ffn_size": 32, "num_experts": 8, "experts_per_token": 2,
    },
}  # fmt: skip
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.15}
"""Of states of size 1: TF32 products, and bfloat16's 8 bits through three layers."""


CASES = [(name, dtype) for name in SHAPES for dtype in TOLERANCE if (name, dtype) != ("deepseek_v3", torch.bfloat16)]
"""In bfloat16 a token between two experts may go to the other one."""


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_rows_go_on_as_on_the_cpu(name: str, dtype: torch.dtype) -> None:
    model = build_model(read_config({"kind": name, "init_std": 0.1, **OF_ALL, **SHAPES[name]}))
    model.initialize(1)
    model.eval()
    ids = torch.randint(0, 384, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model.states(ids, torch.arange(40).expand(2, 40), None)
        model.to("cuda")
        memory = Memory()
        places = torch.tensor([[*range(12)], [*range(5), *[NOTHING] * 7]], device="cuda")
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
            memory.expect(places)
            model.states(ids[:, :12].cuda(), places.clamp(min=0), memory)
            for step in range(20):
                places = torch.tensor([[12 + step], [5 + step]], device="cuda")
                memory.expect(places)
                states = model.states(ids.cuda().gather(1, places), places, memory).float().cpu()
                for row, place in enumerate(places[:, 0].tolist()):
                    torch.testing.assert_close(states[row, 0], whole[row, place], atol=TOLERANCE[dtype], rtol=0)

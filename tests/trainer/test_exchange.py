"""transformers computes what we compute, out and in, and what cannot be had is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from storage.errors import ModelError
from trainer.checkpoints.trained import Trained, open_trained
from trainer.cli import main
from trainer.exchange.deepseek_v3 import rotary_order
from trainer.exchange.export import export_model
from trainer.exchange.importing import import_model
from trainer.models.contract import LanguageModel, Losses
from trainer.models.experts import Router
from trainer.models.kinds import build_model, read_config
from trainer.optimizer import model_tensors

transformers = pytest.importorskip("transformers")

OF_ALL = {"vocabulary_size": 384, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "max_positions": 64}
EXPERTS = {
    "kv_latent_size": 16, "qk_size": 8, "qk_rope_size": 4, "v_size": 12, "ffn_size": 40, "num_dense_layers": 1,
    "expert_ffn_size": 12, "shared_ffn_size": 24, "num_experts": 8, "experts_per_token": 2, "routed_scaling": 1.5,
    "norm_epsilon": 1e-3, "rope_base": 500.0, "tied_embeddings": False,
}  # fmt: skip
LLAMA = {"num_kv_heads": 2, "ffn_size": 48, "norm_epsilon": 1e-3, "rope_base": 500.0}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", LLAMA),
    "llama untied": ("LlamaForCausalLM", {**LLAMA, "tied_embeddings": False, "num_kv_heads": 4}),
    "olmo2": ("Olmo2ForCausalLM", {**LLAMA, "qk_norm": True, "norm_after": True, "tied_embeddings": False}),
    "gpt_neo": ("GPTNeoForCausalLM", {"kind": "gpt_neo", "ffn_size": 56, "window_size": 7}),
    "gpt_neo global": ("GPTNeoForCausalLM", {"kind": "gpt_neo", "ffn_size": 56, "attention": "global"}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", {"kind": "deepseek_v3", **EXPERTS}),
    "deepseek_v3 grouped": (
        "DeepseekV3ForCausalLM",
        {"kind": "deepseek_v3", **EXPERTS, "q_latent_size": 20, "num_groups": 4, "groups_per_token": 2,
         "num_predictors": 2, "tied_embeddings": True, "normalized_weights": False},
    ),
}  # fmt: skip
DEEPSEEK: dict[str, Any] = {
    "moe_intermediate_size": 12, "n_shared_experts": 2, "n_routed_experts": 8, "num_experts_per_tok": 3,
    "kv_lora_rank": 16, "qk_rope_head_dim": 6, "qk_nope_head_dim": 8, "v_head_dim": 10, "first_k_dense_replace": 1,
    "n_group": 2, "topk_group": 1, "num_key_value_heads": 4,
}  # fmt: skip
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"num_key_value_heads": 1}),
    "olmo2": ("Olmo2", {"num_key_value_heads": 4, "rms_norm_eps": 1e-4}),
    "gpt_neo": ("GPTNeo", {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 5}),
    "deepseek_v3": ("DeepseekV3", {**DEEPSEEK, "q_lora_rank": 14}),
    "deepseek_v3 plain queries": ("DeepseekV3", {**DEEPSEEK, "q_lora_rank": None, "norm_topk_prob": False}),
}


def shaken(name: str) -> LanguageModel:
    """A model of large weights, so that nothing hides in rounding; norms, biases and experts' biases too."""
    model = build_model(read_config({**OF_ALL, "init_std": 0.2, **OURS[name][1]}))
    model.initialize(1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        for module in model.modules():
            if isinstance(module, Router):
                module.bias_E += 0.3 * torch.randn(module.bias_E.shape, generator=generator)
    return model.eval()


@pytest.fixture
def export(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    """Exports a model beside the tokenizer of a run; returns the folder."""

    def run(model: LanguageModel, **options: Any) -> Path:
        fields = {**vars(open_trained(trained)), "model": model}
        export_model(Trained(**fields), tmp_path / "theirs", **options)
        return tmp_path / "theirs"

    return run


def assert_same(ours: LanguageModel, theirs: Any) -> None:
    """Logits and the mean loss over three rows of 60 tokens."""
    tokens = torch.randint(0, 300, (3, 60), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(60).expand(3, 60)
    with torch.no_grad():
        logits = ours(tokens, positions)
        expected = theirs(tokens, labels=tokens)
        losses = ours(tokens, positions, None, tokens.roll(-1, dims=1), (positions < 59).float())
    assert float(logits.abs().max()) > 1
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=0)
    assert isinstance(losses, Losses)
    assert float(losses.nats) / (3 * 59) == pytest.approx(float(expected.loss), abs=1e-4)


@pytest.mark.parametrize("name", OURS)
def test_transformers_computes_what_we_compute(name: str, export: Callable[..., Path], tmp_path: Path) -> None:
    model = shaken(name)
    folder = export(model)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(theirs).__name__ == OURS[name][0]
    assert_same(model, theirs.eval())
    import_model(folder, tmp_path / "back")
    back = model_tensors(open_trained(tmp_path / "back").model)
    assert all(torch.equal(tensor, back[key]) for key, tensor in model_tensors(model).items())


@pytest.mark.parametrize("name", THEIRS)
def test_we_compute_what_transformers_computes(name: str, trained: Path, tmp_path: Path) -> None:
    kind, fields = THEIRS[name]
    torch.manual_seed(4)
    config = getattr(transformers, f"{kind}Config")(
        **{"vocab_size": 384, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
           "intermediate_size": 40, "max_position_embeddings": 64, "initializer_range": 0.2, "eos_token_id": 0,
           "bos_token_id": 0, **fields}
    )  # fmt: skip
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.dim() == 1:
                tensor += 0.3 * torch.rand(tensor.shape)
    theirs.save_pretrained(tmp_path / "theirs")
    options = ["--from", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours")]
    assert main(["import", *options, "--tokenizer", str(trained / "tokenizer.json")]) == 0
    opened = open_trained(tmp_path / "ours")
    assert opened.step == 0 and opened.vocabulary.padded_size == 384
    assert_same(opened.model.eval(), theirs)


def test_large_models_are_cut_into_files(export: Callable[..., Path]) -> None:
    model = shaken("olmo2")
    export(model)
    folder = export(model, file_bytes=40_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 3 and files == sorted(set(index["weight_map"].values()))
    assert index["metadata"]["total_size"] == sum(4 * tensor.numel() for tensor in model.parameters())
    assert_same(model, transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())
    assert not list(export(model).glob("*.index.json"))


def test_weights_can_be_half_as_large(export: Callable[..., Path]) -> None:
    folder = export(shaken("deepseek_v3"), dtype="bfloat16")
    kinds = {name: tensor.dtype for name, tensor in load_file(folder / "model.safetensors").items()}
    exact = {name for name, kind in kinds.items() if kind == torch.float32}
    assert len(exact) == 2 and all(name.endswith("e_score_correction_bias") for name in exact)
    assert set(kinds.values()) == {torch.float32, torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_predictors_are_the_layers_after_the_last_as_transformers_has_them(export: Callable[..., Path]) -> None:
    """transformers' own predictor, given the weights of layer 3, makes the states that ours does."""
    mtp = pytest.importorskip("transformers.modeling_layers")
    model = shaken("deepseek_v3 grouped")
    folder = export(model)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    layers = mtp.MtpModel(theirs, 2)
    fused = {f"model.layers.{3 + k}.": f"layers.{k}." for k in range(2)}
    found: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for theirs_prefix, own in fused.items():
            if name.startswith(theirs_prefix):
                found[own + name[len(theirs_prefix) :]] = tensor
    layer = layers.layers[0].eval()
    state = {}
    for name in layer.state_dict():
        plain = name.removeprefix("mtp_block.").replace("post_norm", "shared_head.norm")
        if ".experts.gate_up" in name:
            pairs = [
                [found[f"layers.0.mlp.experts.{e}.{part}_proj.weight"] for part in ("gate", "up")] for e in range(8)
            ]
            state[name] = torch.stack([torch.cat(pair) for pair in pairs])
        elif ".experts.down" in name:
            state[name] = torch.stack([found[f"layers.0.mlp.experts.{e}.down_proj.weight"] for e in range(8)])
        else:
            state[name] = found[f"layers.0.{plain}"]
    layer.load_state_dict(state)
    tokens = torch.randint(0, 300, (1, 20), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(20).unsqueeze(0)
    caught: list[tuple[Any, Any]] = []
    model.predictors[0].register_forward_hook(lambda module, inputs, output: caught.append((inputs, output)))  # type: ignore[union-attr, operator, index]
    with torch.no_grad():
        model.train()(tokens, positions, None, tokens.roll(-1, dims=1), torch.ones(1, 20))
        (states, following, _, _), (ours, _) = caught[0]
        mask = torch.full((20, 20), float("-inf")).triu(1).view(1, 1, 20, 20)
        rotation = theirs.model.rotary_emb(states, positions)
        expected = layer(following, states, rotation, mask, positions, None)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_rotary_pairs_lie_side_by_side() -> None:
    assert rotary_order(1, 3, 6).tolist() == [0, 1, 2, 3, 6, 4, 7, 5, 8]
    assert rotary_order(2, 1, 4).tolist() == [0, 1, 3, 2, 4, 5, 6, 8, 7, 9]


@pytest.mark.parametrize(
    ("name", "changes", "messages"),
    [
        ("llama", {"attention_bias": True, "hidden_act": "gelu", "head_dim": 16},
         ["`attention_bias` is `True`", "`hidden_act` is `gelu`; only `silu`", "`head_dim` is `16`"]),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4}}, ["rotary positions are scaled (`yarn`)"]),
        ("llama", {"quantization_config": {"quant_method": "fp8"}}, ["`quantization_config` is"]),
        ("llama", {"auto_map": {"AutoModel": "code.Model"}}, ["code of its own", "nothing foreign is run"]),
        ("llama", {"architectures": ["MambaForCausalLM"]}, ["MambaForCausalLM", "Olmo2ForCausalLM"]),
        ("llama", {"num_hidden_layers": 4}, ["model.layers.3.input_layernorm.weight is missing"]),
        ("llama", {"num_hidden_layers": 2}, ["model.layers.2.input_layernorm.weight has no place"]),
        ("llama", {"intermediate_size": 50}, ["do not make (100, 32)"]),
        ("llama", {"num_key_value_heads": 3}, ["num_heads must be a multiple of it"]),
        ("llama", {"vocab_size": 200}, ["the weights do not fit"]),
        ("llama", {"eos_token_id": None, "bos_token_id": None}, []),
        ("gpt_neo", {"attention_types": [[["local"], 3]]}, ["layers are local, local, local"]),
        ("deepseek_v3", {"rope_interleave": False}, ["`rope_interleave` is `False`"]),
        ("deepseek_v3", {"scoring_func": "softmax", "topk_method": "greedy"}, ["`scoring_func`", "`topk_method`"]),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused(
    name: str, changes: dict[str, Any], messages: list[str], export: Callable[..., Path], tmp_path: Path
) -> None:
    folder = export(shaken(name))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    if not messages:  # generation_config.json still tells how documents end
        assert import_model(folder, tmp_path / "ours")
        return
    with pytest.raises(ModelError) as caught:
        import_model(folder, tmp_path / "ours")
    assert all(message in str(caught.value) for message in messages), str(caught.value)
    assert not (tmp_path / "ours").exists()


def test_pickled_weights_are_not_opened(export: Callable[..., Path], tmp_path: Path) -> None:
    folder = export(shaken("llama"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="there are no weights here"):
        import_model(folder, tmp_path / "ours")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match="nothing foreign is unpickled"):
        import_model(folder, tmp_path / "ours")


def test_damaged_folders_are_refused(export: Callable[..., Path], tmp_path: Path) -> None:
    folder = export(shaken("llama"))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(ModelError, match="files outside of the folder"):
        import_model(folder, tmp_path / "ours")
    (folder / "model.safetensors.index.json").unlink()
    tokenizer = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="there is no tokenizer.json"):
        import_model(folder, tmp_path / "ours")
    (folder / "tokenizer.json").write_bytes(tokenizer)
    with pytest.raises(ModelError, match="`<nothing>` is no entry of the tokenizer"):
        import_model(folder, tmp_path / "ours", end_of_document="<nothing>")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match="model.safetensors cannot be read"):
        import_model(folder, tmp_path / "ours")


def test_a_head_that_is_not_the_embedding_is_not_tied(export: Callable[..., Path], tmp_path: Path) -> None:
    folder = export(shaken("llama"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    import_model(folder, tmp_path / "equal")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match="lm_head.weight should be a copy"):
        import_model(folder, tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"qk_norm": True}, "qk_norm True with norm_after False"),
        ("deepseek_v3", {"latent_norms": False}, "latents without norms"),
        ("deepseek_v3", {"shared_ffn_size": 18}, "shared experts of 18"),
    ],
)
def test_what_transformers_has_no_class_for_is_not_exported(
    name: str, changes: dict[str, Any], message: str, export: Callable[..., Path]
) -> None:
    model = build_model(read_config({**OF_ALL, **OURS[name][1], **changes}))
    with pytest.raises(ModelError, match=message):
        export(model)


def test_an_imported_model_is_trained_on(
    export: Callable[..., Path], tmp_path: Path, mixture_folder: Path, make_preset: Callable[..., Any]
) -> None:
    """`--init-from` takes it for what it is: weights of the same vocabulary."""
    from trainer.settings import Preset
    from trainer.train import train

    folder = export(shaken("deepseek_v3"))
    import_model(folder, tmp_path / "ours")
    start = make_preset(steps=2, init_from=str(tmp_path / "ours"), save_every=1, learning_rate=1e-9, clip=0.0)
    shape = {key: value for key, value in vars(shaken("deepseek_v3").config).items() if key != "vocabulary_size"}
    preset = Preset(name="imported", model=shape, training=start.training)
    out = train(mixture_folder, preset, tmp_path / "run", tell=lambda _: None)
    before, after = (model_tensors(open_trained(path).model) for path in (tmp_path / "ours", out))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=0.01 if "bias_E" in name else 1e-4, rtol=0)

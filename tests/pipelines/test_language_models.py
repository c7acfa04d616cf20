"""What a request says of its model: options of a chat template, keys, and what stands for a model in an identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from classifiers.llm.asking import Failed
from pipelines.language_models import ModelRequest, find_model, parse_template_options, read_key, require_server
from storage.errors import InputError, ResourceError


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ((), {}),
        (("enable_thinking=false",), {"enable_thinking": False}),
        (("depth=3", "mode=deep", "tag=a=b"), {"depth": 3, "mode": "deep", "tag": "a=b"}),
        (("names=[1]",), {"names": "[1]"}),
    ],
)
def test_options_are_what_json_makes_of_them(given: tuple[str, ...], options: dict[str, Any]) -> None:
    assert parse_template_options(given) == options


@pytest.mark.parametrize("given", ["enable_thinking", "=1", "a b=1"])
def test_what_is_no_option_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="NAME=VALUE"):
        parse_template_options((given,))


def model_folder(folder: Path) -> str:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return str(folder)


def test_a_model_is_its_files_and_its_template_options(tmp_path: Path) -> None:
    path = model_folder(tmp_path / "a")
    plain = find_model(ModelRequest(model=path))
    assert plain.name == "a" and plain.gpus == 1
    moved = find_model(ModelRequest(model=model_folder(tmp_path / "b"), tensor_parallel=2))
    assert moved.identity == plain.identity and moved.gpus == 2
    quiet = find_model(ModelRequest(model=path, template_options=("enable_thinking=false",)))
    assert quiet.identity != plain.identity and quiet.told["offline"]["template_options"] == (
        ("enable_thinking", False),
    )


def test_a_key_is_read_from_its_variable_or_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_key(None) is None
    with pytest.raises(InputError, match="TOY_KEY"):
        read_key("TOY_KEY")
    monkeypatch.setenv("TOY_KEY", " secret ")
    assert read_key("TOY_KEY") == "secret"


def test_a_server_that_was_given_up_stops_the_task() -> None:
    told = {"server": {"url": "http://host/v1"}}
    require_server([Failed(reason="nonsense", said="")], told)
    with pytest.raises(ResourceError, match="last seen: no connection"):
        require_server([Failed(reason="no_connection", said=""), Failed(reason="server_gone", said="")], told)

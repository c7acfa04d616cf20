"""JSON Schemas of recipes, policies and labelling recipes, so that editors check them; generated from the models.

`python -m mixtures.json_schemas` writes `mixtures/schemas/*.json` anew; a test says when they are behind. They say what
keys and kinds of values there are. Rules between keys, names and SQL are checked when a file is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mixtures.labelling import Labelling
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from mixtures.yaml_files import WrittenFile
from storage.commit import write_atomically

FOLDER = Path(__file__).parent / "schemas"
MODELS: dict[str, type[WrittenFile]] = {"labelling": Labelling, "policy": Policy, "recipe": Recipe}


def schema_text(name: str) -> str:
    """The schema `labelling`, `policy` or `recipe`, as JSON text."""
    return schema_of(MODELS[name])


def schema_of(model: type[WrittenFile]) -> str:
    """The JSON Schema of a model of a file, as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(_without_noise(schema), indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path = FOLDER) -> None:
    for name in MODELS:
        write_atomically(folder / f"{name}.json", schema_text(name).encode())


def _without_noise(value: Any, *, names: bool = False) -> Any:
    """Leave out titles that repeat a key, nulls that stand for a key left out, and what is no JSON Schema.

    `names`: the keys here are those of the YAML, not of the schema.
    """
    if isinstance(value, list):
        return [_without_noise(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: _without_noise(item, names=key in ("properties", "$defs") and not names)
        for key, item in value.items()
        if names or (item is not None and key not in ("title", "gt", "ge"))
    }
    choices = [item for item in kept.get("anyOf", []) if item != {"type": "null"}] if not names else []
    if len(choices) == 1:
        return {**choices[0], **{key: item for key, item in kept.items() if key != "anyOf"}}
    return {**kept, "anyOf": choices} if choices else kept


if __name__ == "__main__":
    write_schemas()

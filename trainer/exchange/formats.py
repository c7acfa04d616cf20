"""What a Hugging Face format is: how a shape is told in `config.json`, and which of their tensors make each of ours.

A format is told once and used both ways. What a `config.json` asks for and our models cannot do is refused, all of it
at once; what only says how to train or to run (dropout, cache, dtypes) is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from trainer.models.contract import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Link:
    """One of our tensors, and those of theirs that it consists of, one under another.

    `rows` are the rows of each; `order` says which of our rows are theirs, where they lay them out otherwise. Of a
    tensor with more than two dimensions, all but the last are rows.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    order: Tensor | None = None

    def apart(self, tensor: Tensor) -> Sequence[Tensor]:
        """Their tensors, made of ours."""
        rows = _as_rows(tensor)
        rows = rows if self.order is None else rows[self.order]
        return torch.split(rows, list(self.rows or (len(rows),)))

    def together(self, tensors: Sequence[Tensor], like: Tensor) -> Tensor:
        """Our tensor, made of theirs; ValueError when they do not fill it."""
        rows, wanted = torch.cat(list(tensors)), _as_rows(like)
        counts = tuple(map(len, tensors))
        if rows.shape != wanted.shape or counts != (self.rows or (len(wanted),)):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors[:4])
            raise ValueError(f"{', '.join(self.theirs[:4])} of {shapes} do not make {tuple(like.shape)}")
        if self.order is not None:
            rows = rows[self.order.argsort()]
        return rows.view(like.shape)


def _as_rows(tensor: Tensor) -> Tensor:
    return tensor.flatten(0, -2) if tensor.dim() > 2 else tensor


@dataclass
class Fields:
    """A `config.json` being read beside the names of the weights' tensors; collects what cannot be had."""

    row: Mapping[str, Any]
    names: frozenset[str] = frozenset()
    faults: list[str] = field(default_factory=list)

    def take(self, name: str, default: Any = None) -> Any:
        """The value, or what transformers takes where there is none."""
        value = self.row.get(name)
        if value is None and default is None:
            self.faults.append(f"`{name}` is missing")
            return 1
        return default if value is None else value

    def refuse_unless(self, name: str, *allowed: object) -> None:
        """A field that may only have these values; the first stands for its absence."""
        if self.row.get(name, allowed[0]) not in allowed:
            told = " or ".join(f"`{value}`" for value in allowed)
            self.faults.append(f"`{name}` is `{self.row[name]}`; only {told} can be had")

    def rope_base(self) -> float:
        """Base of plain rotary positions, whichever way this version tells it."""
        rope = self.row.get("rope_parameters") or self.row.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            self.faults.append(f"rotary positions are scaled (`{kind}`); only plain ones can be had")
        return float(rope.get("rope_theta") or self.row.get("rope_theta") or 10_000.0)


class Format(Protocol):
    """One architecture of transformers, and the kind of ours that it is."""

    architecture: str

    def fits(self, config: ModelConfig) -> bool:
        """Whether models of this shape are written so."""

    def write(self, config: Any) -> dict[str, Any]:
        """`config.json` for a shape that fits. Raises ModelError for what the format cannot tell."""

    def read(self, fields: Fields) -> dict[str, Any]:
        """The fields of our config; what cannot be had goes to `fields.faults`."""

    def links(self, config: Any) -> Iterable[Link]:
        """Every tensor of the model, tied ones once."""


def rope_fields(base: float) -> dict[str, Any]:
    """Plain rotary positions as both older and newer versions of transformers tell them."""
    return {"rope_theta": base, "rope_parameters": {"rope_type": "default", "rope_theta": base}}

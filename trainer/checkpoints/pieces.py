"""What one process holds of a tensor that several share: rectangles of the whole.

Whatever the layout (sharded, cut by heads, cut into stages), a process says where each of its numbers stands in the
tensor of the whole model. So a checkpoint knows nothing of layouts, and any layout reads any other's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pieces:
    """`parts` are (offsets in the whole tensor of `shape`, the numbers there); writing to them changes the original."""

    shape: tuple[int, ...]
    parts: Sequence[tuple[tuple[int, ...], Tensor]]

    @classmethod
    def whole(cls, tensor: Tensor) -> Pieces:
        """All of it in one piece."""
        return cls(tuple(tensor.shape), [((0,) * tensor.dim(), tensor)])

    def map(self, change: Callable[[Tensor], Tensor]) -> Pieces:
        """The same places with other tensors."""
        return Pieces(self.shape, [(offsets, change(tensor)) for offsets, tensor in self.parts])


Tensors = Mapping[str, Tensor | Pieces]


def as_pieces(tensors: Tensors) -> dict[str, Pieces]:
    """Plain tensors as whole ones."""
    return {
        name: tensor if isinstance(tensor, Pieces) else Pieces.whole(tensor.detach())
        for name, tensor in tensors.items()
    }

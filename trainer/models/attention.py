"""Causal attention that stays within documents, for any kind of model; how it is computed is chosen at run time.

On a CPU by blocks (`blockwise`), on a GPU by FlashAttention, which is told where documents begin (`packed`), and for
anything else (float32 on a GPU, keys from a memory) by PyTorch's own function with a mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.models.blockwise import LONGEST, Blocks, attend_blockwise, see
from trainer.models.memory import Memory, Sight
from trainer.models.packed import (
    VARLEN_DTYPES,
    Flexible,
    Packed,
    attend_flexible,
    attend_packed,
    describe,
    has_varlen,
    pack,
)

Documents = Tensor | Memory | None
"""The number of each token's document within its row; or what was read before, to be gone on from; or one document."""
Mask = Tensor | Blocks | Packed | Flexible | Sight | None
"""What `attend` is told of who sees whom; none: plainly causal."""


def attention_mask(documents_BT: Documents, x_BTD: Tensor, dtype: torch.dtype, window: int | None = None) -> Mask:
    """What `attend` takes for queries and keys of `x_BTD`, multiplied in `dtype`.

    `window` is the number of keys that a query may see, its own among them.
    """
    if isinstance(documents_BT, Memory):
        return documents_BT.sight(dtype, window)
    length = x_BTD.shape[1]
    window = None if window is None or window >= length else window
    if x_BTD.device.type == "cpu" and length <= LONGEST:
        return see(documents_BT, length, dtype, window)
    if documents_BT is None and window is None:
        return None
    if documents_BT is None:
        documents_BT = torch.zeros(x_BTD.shape[:2], dtype=torch.int64, device=x_BTD.device)
    if x_BTD.device.type == "cuda" and dtype in VARLEN_DTYPES:
        return pack(documents_BT, window) if has_varlen() else describe(documents_BT, window)
    return document_mask(documents_BT, dtype, window)


def document_mask(documents_BT: Tensor, dtype: torch.dtype = torch.float32, window: int | None = None) -> Tensor:
    """Additive mask [B, 1, T, T]: 0 where a token may look (its own document, not ahead), else minus infinity."""
    same_BTT = documents_BT.unsqueeze(2) == documents_BT.unsqueeze(1)
    allowed_BTT = same_BTT.tril_()
    if window is not None:
        allowed_BTT = allowed_BTT.triu_(1 - window)
    mask = torch.zeros(allowed_BTT.shape, dtype=dtype, device=documents_BT.device)
    return mask.masked_fill_(~allowed_BTT, float("-inf")).unsqueeze(1)


def attend(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: Mask, scale: float | None = None) -> Tensor:
    """softmax(q·k · scale + mask)·v for each head; scale is 1/sqrt(K) if not told.

    Several query heads may share one key and value head; value heads may have another size.
    """
    scale = q_BHTK.shape[-1] ** -0.5 if scale is None else scale
    if isinstance(mask, Sight):
        k_BGTK, v_BGTK, mask = mask.look(k_BGTK, v_BGTK)
    if isinstance(mask, Packed):
        return attend_packed(q_BHTK, k_BGTK, v_BGTK, mask, scale)  # type: ignore[no-any-return]
    if isinstance(mask, Flexible):
        return attend_flexible(q_BHTK, k_BGTK, v_BGTK, mask, scale)
    repeats = q_BHTK.shape[1] // k_BGTK.shape[1]
    if repeats > 1:
        k_BGTK, v_BGTK = k_BGTK.repeat_interleave(repeats, dim=1), v_BGTK.repeat_interleave(repeats, dim=1)
    if isinstance(mask, Blocks):
        return attend_blockwise(q_BHTK, k_BGTK, v_BGTK, mask, scale)  # type: ignore[no-any-return]
    mask = None if mask is None else mask.to(q_BHTK.dtype)
    return F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, attn_mask=mask, is_causal=mask is None, scale=scale)

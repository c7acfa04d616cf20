"""URL duplicates: documents whose addresses have one normal form are one group, over all parts of a run.

The **normal form** serves to compare and is shown to nobody; documents keep their address as it was written:

- `http` and `https` are one, and `www.` before a host is dropped; other schemes and subdomains count;
- the host in lower case, without a dot at its end; a port that is the scheme's own is dropped, users count;
- the path as it is written, letter case counts; slashes at its end and `;jsessionid=` are dropped; `.`, `..`, double
  slashes and `index.html` stay, for a crawler has resolved the first and a server may mean the others;
- of the query the parameters that track visitors (TRACKING) are dropped and the rest is sorted by name, equal names in
  their order; `ref`, `source`, `id` and the like stay, for they may choose the page;
- the fragment is dropped, but for `#!…`, which names a page;
- escapes: letters, digits and `-._~` are written plain, all else that is not ASCII or is a space as `%XX` in capitals,
  and `+` in a query is a space.

What is no absolute URL (`scheme://host…`) shares its address with nothing: it may be a number that two sources use.
Groups are made like exact copies, by a 128-bit hash: COPIES in which `representative` has the same URL.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.columns import identifier_array, string_buffers, whole
from pipelines.dedup.exact import scatter_hashes
from pipelines.dedup.url_kernels import write_normal_forms
from storage.identity import DIGEST_BYTES

ROWS_AT_A_TIME = 65_536

TRACKING = (
    "utm_", "mc_", "pk_", "hsa_", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "fbclid", "msclkid", "yclid",
    "ysclid", "twclid", "ttclid", "igshid", "igsh", "li_fat_id", "mkt_tok", "_ga", "_gl", "_hsenc", "_hsmi",
    "_openstat", "vero_id", "oly_enc_id", "oly_anon_id", "wickedid", "rb_clickid", "s_cid", "spm", "srsltid",
    "phpsessid", "jsessionid", "sessionid",
)  # fmt: skip
"""Parameters that follow a visitor or a session and choose no page; a name that ends in `_` stands for all that begin
so."""


def normalise_urls(urls: pa.Array | pa.ChunkedArray) -> pa.Array:
    """large_string[n]: the normal form of each; null for what is no absolute URL."""
    offsets, data, is_url = _normal_forms(urls)
    forms = pa.LargeStringArray.from_buffers(len(is_url), pa.py_buffer(offsets), pa.py_buffer(data))
    return pa.array(forms.to_pylist(), pa.large_string(), mask=~is_url)


def scatter_urls(documents: pa.Table, part: int, num_ranges: int) -> pa.Table:
    """HASHES of one part's addresses instead of its texts; `documents` has `doc_id` and `url`."""
    batches = documents.select(["doc_id", "url"]).to_batches(max_chunksize=ROWS_AT_A_TIME)
    hashes = [_hash_urls(batch.column("url")) for batch in batches]
    columns = {"content_hash": pa.chunked_array(hashes, identifier_array([]).type), "doc_id": documents["doc_id"]}
    return scatter_hashes(pa.table(columns).combine_chunks(), part, num_ranges)


def _hash_urls(urls: pa.Array) -> pa.Array:
    offsets, data, is_url = _normal_forms(urls)
    view, ends = memoryview(data), offsets.tolist()  # type: ignore[arg-type]  # numpy arrays are buffers
    return identifier_array(
        [
            hashlib.blake2b(view[ends[i] : ends[i + 1]], digest_size=DIGEST_BYTES).digest() if here else None
            for i, here in enumerate(is_url.tolist())
        ]
    )


def _normal_forms(
    urls: pa.Array | pa.ChunkedArray,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    return write_normal_forms(*string_buffers(whole(urls)), *_tracking_names())


@lru_cache(maxsize=1)
def _tracking_names() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    names = np.frombuffer("".join(TRACKING).encode(), np.uint8)
    return names, np.cumsum([len(name) for name in TRACKING])

"""The name of a Hugging Face dataset: a folder or a name on the hub, and which subset, split and revision of it.

`owner/name?subset=en&split=test&revision=v1.2`, as in a URL. A revision of the hub is resolved to its commit once, when
the inputs are listed, and that commit is what is read and what the input is known by: one request for a name, none for
a name that gives the commit itself.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl

from storage.errors import InputError

OPTIONS = ("subset", "split", "revision")
DEFAULT_SPLIT = "train"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_SHOWN_REVISIONS = 20


@dataclass(frozen=True, kw_only=True)
class DatasetName:
    """Where a dataset is, and what of it is meant; None where nothing was said."""

    path: str
    subset: str | None = None
    split: str | None = None
    revision: str | None = None

    def label(self, place: str) -> str:
        """`place` with subset and split: what tells its documents from others of the same dataset, at any revision."""
        split = None if self.split == DEFAULT_SPLIT else self.split
        given = [f"{name}={value}" for name, value in (("subset", self.subset), ("split", split)) if value]
        return f"{place}?{'&'.join(given)}" if given else place


def parse_dataset_name(source: str, text: str) -> DatasetName:
    """Read `PATH[?subset=…&split=…&revision=…]`. Raises InputError for other options, or one given twice or empty."""
    path, mark, query = text.partition("?")
    if not mark or Path(text).expanduser().exists():
        return DatasetName(path=text)
    given = parse_qsl(query, keep_blank_values=True)
    faults = [f"`{name}` is no option of a dataset" for name, _ in given if name not in OPTIONS]
    faults += [f"`{name}` is empty" for name, value in given if not value]
    faults += [f"`{name}` is given twice" for name in OPTIONS if sum(name == other for other, _ in given) > 1]
    if faults or not given:
        raise InputError(
            f"the dataset of source `{source}` is not named clearly: {'; '.join(faults) or 'nothing follows the `?`'}",
            at=text,
            hint="write `owner/name?subset=NAME&split=NAME&revision=NAME`, quoted; all three may be left out",
        )
    return DatasetName(path=path, **dict(given))


def is_hub_name(path: str) -> bool:
    """Whether this could be the name of a dataset on the hub: `name` or `owner/name`."""
    return _HUB_NAME.fullmatch(path) is not None


@cache
def resolve_commit(path: str, revision: str | None) -> str:
    """The commit (40 hex digits) that a revision of a hub dataset is now. Raises InputError, with those that exist."""
    if revision and _COMMIT.fullmatch(revision):
        return revision
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        return str(HfApi().dataset_info(path, revision=revision).sha)
    except RevisionNotFoundError as error:
        raise InputError(
            f"the dataset `{path}` has no revision `{revision}`",
            at=path,
            hint=f"it has {', '.join(_revisions(path))}; a commit can be named too",
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no dataset `{path}` here, and none on the hub: {str(error)[:200]}",
            at=path,
            hint="is the path or name right, and the hub in reach?",
        ) from error


def _revisions(path: str) -> list[str]:
    """Branches and tags, a few of them."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().list_repo_refs(path, repo_type="dataset")
    except (OSError, ValueError, RuntimeError):
        return ["`main`"]
    return [f"`{ref.name}`" for ref in [*found.branches, *found.tags][:_SHOWN_REVISIONS]]

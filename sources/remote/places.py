"""What is remote, and which fsspec filesystem reads it."""

from __future__ import annotations

from typing import Any

from storage.errors import InputError


def is_remote(path: str) -> bool:
    return "://" in path


def filesystem_of(path: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL and the path on it. Raises InputError for a protocol that is not installed."""
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot open this URL: {error}", at=path, hint="install the protocol's package") from error
    return filesystem, inner

"""What extraction gives of a web page, without the extraction itself, which only a process of its own loads."""

from __future__ import annotations

from dataclasses import dataclass

PACKAGES = ("resiliparse", "numba")
"""Distributions whose version can change a page's text: one detects encodings, one compiles the judgement."""
UNION_PACKAGES = ("trafilatura", "lxml", "htmldate", "courlan", "justext")


@dataclass(frozen=True, slots=True)
class Page:
    """What a reader would call the text of a page, and what the page says about itself; any of it may be missing."""

    text: str
    title: str | None = None
    author: str | None = None
    date: str | None = None
    language: str | None = None
    canonical_url: str | None = None
    licence_mark: str | None = None

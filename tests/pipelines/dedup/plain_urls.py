"""A second, plain implementation of the normal form of URLs, on Python strings; it shares no code with the kernels."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from pipelines.dedup.urls import TRACKING

SAFE = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"
"""ASCII that stands as it is written where it is not escaped."""
SPACES = "".join(map(chr, range(0x21)))


def plain_form(url: str) -> str | None:
    """What `normalise_urls` says of one address."""
    url = url.strip(SPACES)
    absolute = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]+)([^?#]*)(\?[^#]*)?(#.*)?", url, re.DOTALL)
    if not absolute:
        return None
    scheme, authority, path, query, fragment = absolute.groups()
    place = plain_host(scheme.lower(), authority)
    if place is None:
        return None
    path = re.sub(r"(?i);jsessionid=[^/]*", "", path)
    shown = "" if scheme.lower() in ("http", "https") else scheme.lower() + "://"
    hashbang = "#" + escaped(fragment[1:]) if (fragment or "").startswith("#!") else ""
    return shown + place + escaped(path).rstrip("/") + plain_query((query or "?")[1:]) + hashbang


def plain_host(scheme: str, authority: str) -> str | None:
    user, at, host = authority.rpartition("@")
    host, port = re.fullmatch(r"(.*?)(?::(\d*))?", host, re.DOTALL).groups()  # type: ignore[union-attr]
    host = re.sub("[A-Z]", lambda letter: letter[0].lower(), host.rstrip("."))
    while host.startswith("www.") and "." in host[4:]:
        host = host[4:]
    forbidden = SPACES + "\x7f" + ("" if host.startswith("[") else ":")
    if host.startswith("[") and not host.endswith("]"):
        return None
    if not host or any(character in forbidden for character in host):
        return None
    is_default = (scheme, port) in (("http", "80"), ("https", "443"))
    return escaped(user) + at + host + (f":{port}" if port and not is_default else "")


def plain_query(query: str) -> str:
    parameters = [parameter for parameter in escaped(query.replace("+", " ")).split("&") if parameter]
    kept = [parameter for parameter in parameters if not is_tracking(parameter.partition("=")[0].lower())]
    if len(escaped(query).split("&")) <= 64:
        kept.sort(key=lambda parameter: parameter.partition("=")[0])
    return "?" + "&".join(kept) if kept else ""


def is_tracking(name: str) -> bool:
    return any(name.startswith(known) if known.endswith("_") else name == known for known in TRACKING)


def escaped(text: str) -> str:
    """Escapes taken apart one by one: an escaped character stays escaped, but for letters, digits and `-._~`."""
    pieces = re.split(r"(%[0-9A-Fa-f]{2})", text)
    return "".join(
        quote(unquote_to_bytes(piece), safe="") if i % 2 else quote(piece, safe=SAFE) for i, piece in enumerate(pieces)
    )

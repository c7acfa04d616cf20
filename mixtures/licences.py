"""Licences: which texts are measured and never trained on, unless the recipe says so.

A licence that is stated must be known to let everyone use, change and pass a text on, at most under its author's name
or under the same terms; where none is stated (all of a web crawl) nothing is assumed and nothing held back. What is
held back is judged like any other document, by two rules behind all rules of the policy, so the ledger says of it that
it would have been kept, and a duplicate under a better licence is kept in its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.policy import Policy, Rule, load_policy
from storage.errors import RecipeError

CLASS, METADATA_ONLY = "licence_class", "metadata_only"
"""The catalogue's columns: `permissive`, `restricted` or null where no licence is stated; and what its input says."""
PERMISSIVE, RESTRICTED = "permissive", "restricted"
ANY = "any"
RULES = ("licence_not_permissive", "metadata_only")

_FAMILIES = frozenset(
    "mit expat x isc bsd bsd-clause clause-bsd bsd-clause-clear apache zlib bsl boost psf python unlicense wtfpl "
    "pddl odc-pddl odc-by open-data-commons-attribution odbl odc-odbl open-data-commons-open-database cdla-permissive "
    "cdla-sharing gfdl fdl gnu-free-documentation ogl ogl-uk open-government etalab ouverte-open ouverte public-domain "
    "publicdomain public-domain-mark us-government-works ncsa postgresql afl ecl artistic ms-pl ofl unicode "
    "unicode-dfs dl-de-by dl-de-zero free-art lal".split()
)
"""Names of licences without their versions. Copyleft for software (GPL, MPL) is not among them, as in The Stack."""
_NOISE = frozenset(
    "the a license licence licensed licenced under version v new revised simplified style software international "
    "unported only or later no invariants plus gmbh".split()
)
_CC_ADDRESS = re.compile(r"creativecommons\.org/(?:licen[sc]es|publicdomain)/([a-z+-]+)")
_CC_GIVES = frozenset("by attribution sa sharealike zero 0 pd pdm public publicdomain mark".split())
_CC_KEEPS = frozenset("nc nd non no noncommercial noderivatives noderivs nonderivative sampling devnations".split())


@cache
def is_permissive(licence: str) -> bool:
    """Whether a licence is known to be: an SPDX name or expression, a Creative Commons name or address.

    Of `A OR B` one must be, of `A AND B`, and of what has brackets, all.
    """
    if "(" in licence:
        names = re.split(r" (?:AND|OR) ", licence.replace("(", " ").replace(")", " "))
        return all(_is_known(name) for name in names)
    return any(all(_is_known(name) for name in choice.split(" AND ")) for choice in licence.split(" OR "))


def _is_known(name: str) -> bool:
    name = name.partition(" WITH ")[0].lower()
    if address := _CC_ADDRESS.search(name):
        return _gives(re.findall("[a-z]+", address[1]))
    words = re.findall(r"[a-z]+|\d[\d.]*", name)
    if words[:1] == ["cc"] or {"creative", "commons"} <= set(words):
        return _gives(words)
    return "-".join(word for word in words if word.isalpha() and word not in _NOISE) in _FAMILIES


def _gives(words: Sequence[str]) -> bool:
    """Whether the words of a Creative Commons licence grant enough and keep nothing back."""
    return bool(_CC_GIVES & set(words)) and not _CC_KEEPS & set(words)


def classify(licences: pa.Array) -> pa.Array:
    """`licence_class` of each licence: every different one is looked at once."""
    encoded = licences.dictionary_encode()
    classes = [_class_of(licence) for licence in encoded.dictionary.to_pylist()]
    return pc.take(pa.array(classes, pa.string()), encoded.indices)


def _class_of(licence: str) -> str | None:
    if not licence.strip():
        return None
    return PERMISSIVE if is_permissive(licence) else RESTRICTED


def load_judging(judging: Mapping[str, Any]) -> Policy:
    """The policy that documents are judged by: `policy` is its path, `allow_licences` what the recipe allows."""
    return hold_back(load_policy(judging["policy"]), judging["allow_licences"])


def hold_back(policy: Policy, allow_licences: Sequence[str] | str | None) -> Policy:
    """A policy with the two rules behind its own; `allow_licences` names licences, or is `any`."""
    if clash := [rule.rule for rule in policy.rules if rule.rule in RULES]:
        raise RecipeError(
            f"the policy has a rule `{clash[0]}`, which is the name of a rule that every policy has",
            at=policy.file,
            hint="give it another name; licences are allowed by a recipe's `allow_licences`",
        )
    rules = [Rule(rule=RULES[1], when=METADATA_ONLY)]
    if allow_licences != ANY:
        rules.insert(0, Rule(rule=RULES[0], when=_restricted(allow_licences or ())))
    return policy.model_copy(update={"rules": (*policy.rules, *rules)})


def _restricted(allowed: Sequence[str]) -> str:
    condition = f"{CLASS} = '{RESTRICTED}' AND licence IS NOT NULL"
    names = ", ".join("'" + name.lower().replace("'", "''") + "'" for name in allowed)
    return f"{condition} AND lower(licence) NOT IN ({names})" if names else condition

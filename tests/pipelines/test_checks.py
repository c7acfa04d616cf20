"""What a request cannot ask for is said before anything starts, with what to type instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.checks import check_request
from pipelines.request import RunRequest
from pipelines.steps import is_asked
from storage.errors import CurationError

POLICY = """\
format_version: 1
name: repeats
rules:
  - rule: repeated
    measure: {name}
    max: 0.5
    optional: {optional}
"""


def request(folder: Path, **asked: Any) -> RunRequest:
    source = folder / "pages.jsonl"
    source.write_text('{"text": "a page", "url": "https://example.org"}\n')
    return RunRequest(inputs={"jsonl": (f"web={source}",)}, out=str(folder / "run"), **asked)


def policy(folder: Path, name: str, *, optional: bool) -> str:
    path = folder / "policy.yaml"
    path.write_text(POLICY.format(name=name, optional=str(optional).lower()))
    return str(path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"rewrite": ("remove_repeated_spans",)}, "has nothing to remove"),
        (
            {"rewrite": ("remove_repeated_spans", "simplify_chinese"), "repeated_lines": "host:3"},
            "name `remove_repeated_spans` last",
        ),
        ({"repeated_spans": "substring:200,keep=all"}, "keep is `all`"),
        ({"repeated_lines": "host"}, None),
        ({"repeated_spans": "substring:200,unit=tokens,tokenizer=none.json"}, "no tokenizer.json"),
    ],
)
def test_passages_that_cannot_be_asked_for(tmp_path: Path, asked: dict[str, Any], said: str | None) -> None:
    if said is None:
        check_request(request(tmp_path, **asked))
        return
    with pytest.raises(CurationError, match=said):
        check_request(request(tmp_path, **asked))


@pytest.mark.parametrize(
    ("name", "hint"), [("repeated.share", "--repeated-spans"), ("repeated_lines.share", "--repeated-lines")]
)
def test_a_rule_on_passages_asks_for_their_search(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(CurationError, match=hint):
        check_request(request(tmp_path, policy=policy(tmp_path, name, optional=False)))
    check_request(request(tmp_path, policy=policy(tmp_path, name, optional=True)))


def test_the_cut_is_a_step_of_its_own(tmp_path: Path) -> None:
    asked = request(tmp_path, rewrite=("remove_repeated_spans",), repeated_spans="substring:200")
    assert is_asked("spans", asked) and not is_asked("rewrite", asked)
    both = request(tmp_path, rewrite=("simplify_chinese", "remove_repeated_spans"), repeated_lines="ccnet")
    assert is_asked("spans", both) and is_asked("rewrite", both)

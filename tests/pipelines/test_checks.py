"""What a request cannot ask for is said before anything starts, with what to type instead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.checks import check_request
from pipelines.request import RunRequest
from pipelines.scorers import parse_scorer
from pipelines.steps import is_asked
from storage.errors import CurationError
from tests.classifiers.scorers.conftest import write_classifier

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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "notes.bin").write_text("not a model")
    return {
        "edu": str(write_classifier(folder / "edu")),
        "domain": str(write_classifier(folder / "domain", {0: "Sports", 1: "Science"})),
        "notes": str(folder / "notes.bin"),
    }


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (("edu",), "is not NAME=MODEL"),
        (("Edu=EDU",), "the name `Edu`"),
        (("=EDU",), "the name ``"),
        (("edu=EDU", "edu=DOMAIN"), "two scorers are called `edu`"),
        (("edu=EDU:clip=5",), "`clip=5` is not LOW..HIGH"),
        (("edu=EDU:clip=5..0",), "is empty"),
        (("edu=EDU:scale=-1",), "it must be above 0"),
        (("edu=EDU:scale=much",), "could not convert"),
        (("edu=EDU:klip=0..5",), "there is no option `klip`: there are batch_tokens, clip"),
        (("edu=EDU:positive=hq",), "gives one number"),
        (("edu=EDU:max_tokens=0",), "max_tokens is 0"),
        (("edu=EDU:dtype=int8",), "none of auto, float32"),
        (("domain=DOMAIN:positive=Art",), "no class `Art`"),
        (("domain=DOMAIN:scale=5",), "name the class that counts"),
        (("edu=/nowhere/edu",), "no such model folder"),
        (("edu=NOTES",), "fastText"),
        (("edu=NOTES:max_tokens=5",), "fastText reads the whole text"),
    ],
)
def test_scorers_that_cannot_score(tmp_path: Path, models: dict[str, str], score: tuple[str, ...], said: str) -> None:
    places = {"EDU": models["edu"], "DOMAIN": models["domain"], "NOTES": models["notes"]}
    asked = tuple(re.sub("EDU|DOMAIN|NOTES", lambda found: places[found[0]], text) for text in score)
    with pytest.raises(CurationError, match=re.escape(said)):
        check_request(request(tmp_path, score=asked))


def test_paths_with_colons_and_options_are_told_apart() -> None:
    scorer = parse_scorer("edu=models/a:b/c:clip=0..5,scale=2.5,max_tokens=100")
    assert (scorer.name, scorer.model) == ("edu", "models/a:b/c")
    assert (scorer.telling.clip, scorer.telling.scale, scorer.config.max_tokens) == ((0, 5), 2.5, 100)
    assert parse_scorer("hq=org/name@rev").model == "org/name@rev"
    assert parse_scorer("x=m.bin:positive=__label__hq+good").telling.positive == ("hq", "good")


@pytest.mark.parametrize(
    ("score", "name", "said"),
    [
        ((), "scores.edu.value", "--score NAME=MODEL"),
        ((), "ensemble.bucket", "--score NAME=MODEL"),
        (("edu",), "scores.dclm.value", "names here: scores.edu.bucket, scores.edu.value"),
        (("edu",), "scores.edu.label", "did you mean"),
        (("edu",), "ensemble.buckets", "did you mean `ensemble.bucket`"),
        (("edu",), "scores.edu.bucket", None),
        (("edu", "domain"), "ensemble.bucket", None),
        (("domain",), "ensemble.bucket", "ensemble"),
    ],
)
def test_names_of_scores_are_known_before_anything_runs(
    tmp_path: Path, models: dict[str, str], score: tuple[str, ...], name: str, said: str | None
) -> None:
    asked = request(
        tmp_path,
        score=tuple(f"{one}={models[one]}" for one in score),
        policy=policy(tmp_path, name, optional=False),
    )
    if said is None:
        check_request(asked)
        return
    with pytest.raises(CurationError, match=re.escape(said)):
        check_request(asked)


def test_an_ensemble_is_checked_before_anything_runs(tmp_path: Path, models: dict[str, str]) -> None:
    path = tmp_path / "ensemble.yaml"
    path.write_text(
        POLICY.format(name="text_bytes", optional="false") + "ensemble:\n  bucket: scores.dclm.bucket + 1\n"
    )
    with pytest.raises(CurationError, match=re.escape("`scores.dclm.bucket`")) as caught:
        check_request(request(tmp_path, score=(f"edu={models['edu']}",), policy=str(path)))
    assert str(caught.value.at).endswith("ensemble.yaml:9")  # type: ignore[attr-defined]

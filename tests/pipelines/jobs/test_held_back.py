"""What is held back for its licence is measured and judged; no token of it is in a vocabulary, a bin or an export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mixtures.licences import load_judging
from pipelines.commands.export_documents import export_documents
from pipelines.jobs.tokenize import tokenize_part
from pipelines.jobs.vocabulary import make_vocabulary
from pipelines.run_folder import RunFolder
from storage.parts import part_from_json, part_to_json
from tests.mixtures.tiny_run import KEEP_ALL, Doc, Run, name_of
from tests.stored_run import text_of
from tokenizer.encode import Encoder
from tokenizer.store import publish_store
from tokenizer.vocabulary import read_vocabulary

OPEN = [Doc(f"o{i}", text=text_of(i + 9), licence="CC-BY-4.0" if i % 2 else None) for i in range(20)]
CLOSED = [Doc(f"c{i}", source="forum", text="zyxwvut " * 30, licence="CC-BY-NC-4.0") for i in range(10)]
MEASURED = [Doc(f"m{i}", source="feed", text="qponmlk " * 30, metadata_only=True) for i in range(10)]
RECIPE = """\
format_version: 1
name: all
seed: 1
policy: policy.yaml
tokenizer: {train: {vocabulary_size: 400}}
sources:
  - {name: all, where: 'true'}
"""


@pytest.mark.parametrize(
    ("allowed", "closed"), [(None, False), (["MIT"], False), (["CC-BY-NC-4.0"], True), ("any", True)]
)
def test_no_token_of_it_is_in_any_bin(tmp_path: Path, allowed: object, closed: bool) -> None:
    (tmp_path / "policy.yaml").write_text(KEEP_ALL)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run, folder = Run(tmp_path / "run", [*OPEN, *CLOSED, *MEASURED], 15), RunFolder(tmp_path / "run")
    policy = load_judging({"policy": str(tmp_path / "policy.yaml"), "allow_licences": allowed})
    run.judge(policy)
    told = {"root": str(folder.root), "recipe": str(tmp_path / "recipe.yaml"), "policy": policy.identity()}
    made = make_vocabulary(told)["tokenizer"]
    results = [tokenize_part({**told, "tokenizer": made, "part": part_to_json(p)}) for p in run.documents.parts]
    vocabulary = read_vocabulary(folder.vocabulary(made))
    parts = [part_from_json(result["part"]) for result in results if result["part"]]
    publish_store(folder.tokens(made), vocabulary.vocabulary, parts)

    bins = [np.fromfile(path, vocabulary.vocabulary.dtype) for path in folder.tokens(made).rglob("*.bin")]
    text = " ".join(Encoder(vocabulary, fast=False).decode(ids) for ids in bins)
    assert bins and OPEN[0].text.split()[0] in text
    assert ("zyxwvut" in text) == closed and "qponmlk" not in text
    assert b"qponmlk"[:3] not in vocabulary.data and (b"zyx" in vocabulary.data) == closed

    export_documents(folder, policy.identity(), tmp_path / "out")
    exported = [
        name_of(bytes.fromhex(i))
        for f in (tmp_path / "out").glob("*.parquet")
        for i in pq.read_table(f)["id"].to_pylist()
    ]
    assert {name[0] for name in exported} == ({"o", "c"} if closed else {"o"})
    assert sum(part.rows for part in run.catalogue.parts) == 40

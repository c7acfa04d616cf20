"""A run that is tokenized for real: documents with texts, a trained vocabulary, a store in bins, a mixture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixtures.corpus import Corpus, open_corpus
from mixtures.plan import MixturePlan, plan_mixture
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from mixtures.select import write_mixture
from mixtures.yaml_files import load_yaml
from pipelines.run_folder import RunFolder, StepRecord, write_step
from storage.parts import Part
from tests.mixtures.tiny_run import KEEP_ALL, Doc, Run
from tokenizer.bins import pack_bin, plan_bins, remove_loose
from tokenizer.encode import Encoder
from tokenizer.store import publish_store, write_store_part
from tokenizer.training import TrainingConfig, train_tokenizer
from tokenizer.vocabulary import TokenizerFile, describe_tokenizer, write_vocabulary

GRAINS = ("wheat", "rye", "barley", "oats", "磨坊", "Mühle", "spelt", "millet")
RECIPE = """\
format_version: 1
name: grains
seed: 1
policy: policy.yaml
tokenizer: {load: t.json}
tokens: {tokens}
heldout: {share: 0.1}
sources:
  - {name: web, where: source = 'web', weight: 1}
  - {name: wiki, where: source = 'wiki', weight: 2}
"""


def text_of(number: int) -> str:
    words = [GRAINS[(number * k + k // 3) % len(GRAINS)] for k in range(3, 8 + number % 40)]
    return f"Document {number}: " + " ".join(words)


DOCS = [
    *(Doc(f"web{i:02d}", text=text_of(i)) for i in range(20)),
    *(Doc(f"wiki{i:02d}", source="wiki", text=text_of(20 + i)) for i in range(9)),
    Doc("dropped", words=1, text="never"),
]
TEXTS = {doc.doc_id: doc.text for doc in DOCS}


@lru_cache(maxsize=1)
def tokenizer() -> TokenizerFile:
    data = train_tokenizer([pa.array(list(TEXTS.values()))], TrainingConfig(size=400))
    return TokenizerFile(data, describe_tokenizer(data))


@dataclass(frozen=True)
class StoredRun:
    """Its folder, and what its mixture was made from."""

    folder: RunFolder
    mixture: Path
    plan: MixturePlan
    recipe: Recipe
    corpus: Corpus

    @property
    def store(self) -> Path:
        return self.folder.tokens(tokenizer().vocabulary.tokenizer_hash)

    @property
    def vocabulary(self) -> Path:
        return self.folder.vocabulary(tokenizer().vocabulary.tokenizer_hash)


def make_stored_run(root: Path, *, tokens: int = 1_200, part_rows: int = 4, bin_bytes: int = 500) -> StoredRun:
    """Twenty-nine documents of two sources, the smaller of them repeated; several bins, most of several parts."""
    run, folder = Run(root / "run", DOCS, part_rows), RunFolder(root / "run")
    (root / "policy.yaml").write_text(KEEP_ALL)
    (root / "recipe.yaml").write_text(RECIPE.replace("{tokens}", str(tokens)))
    policy, recipe = load_yaml(root / "policy.yaml", Policy), load_yaml(root / "recipe.yaml", Recipe)
    decisions = run.judge(policy)
    write_step(folder, StepRecord(step="judge", identity="j", result={"policy": policy.identity()}, costs={}))
    identity = tokenizer().vocabulary.tokenizer_hash
    write_vocabulary(folder.vocabulary(identity), tokenizer())
    _tokenize(run, folder.tokens(identity), bin_bytes)
    corpus = open_corpus(folder.catalogue, decisions, folder.tokens(identity))
    plan = plan_mixture(recipe, corpus)
    target = folder.mixture(plan.identity())
    write_mixture(target, plan, recipe, corpus, vocabulary=folder.vocabulary(identity))
    return StoredRun(folder, target, plan, recipe, corpus)


def _tokenize(run: Run, store: Path, bin_bytes: int) -> None:
    encoder, parts = Encoder(tokenizer(), fast=False), list[Part]()
    for part in run.documents.parts:
        admitted = np.array([row for row in range(part.rows) if _doc(run, part, row).words != 1], np.int64)
        batches = run.documents.batches(part, ["doc_id", "text"])
        parts.append(write_store_part(store, encoder, documents=part, batches=batches, admitted=admitted))
    packed: dict[str, Part] = {}
    for group in plan_bins(parts, (), bin_bytes=bin_bytes):
        packed |= dict(zip([part.identity for part in group], pack_bin(store, group), strict=True))
    publish_store(store, tokenizer().vocabulary, parts, packed=packed)
    remove_loose(store, packed, ())


def _doc(run: Run, part: Part, row: int) -> Doc:
    return run.cuts[run.documents.parts.index(part)][row]

"""Mixtures in other trainers' words, held to what those read: by Megatron's own code, and OLMo-core's where it is."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from tokenizers import Tokenizer

from mixtures.adopt import Adoption, adopt_blend
from mixtures.blends import read_blend, read_validation
from mixtures.folder import MixtureFolder, read_mixture_folder
from mixtures.megatron_lists import data_path, flagscale_data, flagscale_experiment, per_split
from mixtures.olmo_core import dataset_config, source_list, write_token_files
from mixtures.plan import MixturePlan, plan_mixture
from mixtures.policy import Policy
from mixtures.recipe import Recipe
from mixtures.select import write_compact_mixture, write_mixture
from pipelines.commands.export_lists import export_lists
from storage.errors import DatasetError, InputError
from storage.megatron import IndexedReader
from tests.mixtures.tiny_run import END, Doc, Run

SOURCES = """\
  - {name: web, where: source = 'web', weight: 2}
  - {name: wiki, where: source = 'wiki', weight: 3}
"""
DOCS = [
    *(Doc(f"web{i:02d}", tokens=8 + i) for i in range(40)),
    *(Doc(f"wiki{i:02d}", source="wiki", tokens=20) for i in range(11)),
]
OWN = {number: doc for number, doc in enumerate(DOCS, 1)}


@pytest.fixture
def plan_and_folder(
    make_run: Callable[..., Run], recipe_from: Callable[..., Recipe], keep_all: Policy
) -> tuple[MixturePlan, MixtureFolder]:
    run, recipe = make_run(DOCS, part_rows=20), recipe_from(SOURCES, "tokens: 850\nsequence_length: 16", "{share: 0.1}")
    plan = plan_mixture(recipe, corpus := run.corpus(keep_all))
    return plan, read_mixture_folder(
        write_mixture(run.root / "m", plan, recipe, corpus, vocabulary=write_vocabulary(run))
    )


def write_vocabulary(run: Run) -> Path:
    """The tiny run's vocabulary with a tokenizer whose end-of-document token has the run's id."""
    folder = run.vocabulary()
    end = {"id": END, "content": "<|endoftext|>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    model = {"type": "WordLevel", "vocab": {"<|endoftext|>": END}, "unk_token": "<|endoftext|>"}
    (folder / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": [{**end, **flags}], "model": model})
    )
    return folder


def documents(reader: IndexedReader) -> Counter[int]:
    return Counter(int(reader[i][0]) for i in range(len(reader)))


def test_megatron_takes_the_shares_of_the_plan_from_its_list(
    plan_and_folder: tuple[MixturePlan, MixtureFolder],
) -> None:
    utils = pytest.importorskip("megatron.core.datasets.utils")
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    plan, mixture = plan_and_folder
    prefixes, weights = utils.get_blend_from_list(data_path(mixture, str(mixture.folder)))
    opened = [indexed.IndexedDataset(prefix) for prefix in prefixes]
    assert weights == [int(shard.sequence_lengths.sum()) for shard in opened] and sum(weights) == plan.tokens_given
    shares = {source.name: source.tokens_given / plan.tokens_given for source in plan.sources}
    assert mixture.shares() == pytest.approx(shares, abs=1e-12)


def test_held_out_shards_are_the_validation_data_of_megatrons_splits(
    plan_and_folder: tuple[MixturePlan, MixtureFolder],
) -> None:
    utils = pytest.importorskip("megatron.core.datasets.utils")
    plan, mixture = plan_and_folder
    splits = json.loads(json.dumps(per_split(mixture, str(mixture.folder))))
    train, valid, test = (utils.get_blend_from_list(splits[name]) for name in ("train", "valid", "test"))
    assert (
        test is None
        and valid[1] is None
        and train == utils.get_blend_from_list(data_path(mixture, mixture.folder.as_posix()))
    )
    held = sum(IndexedReader(Path(prefix)).num_tokens for prefix in valid[0])
    assert held == sum(source.heldout_tokens for source in plan.sources) > 0


def test_flagscales_two_files_say_what_megatrons_words_say(
    plan_and_folder: tuple[MixturePlan, MixtureFolder], tmp_path: Path
) -> None:
    _, mixture = plan_and_folder
    data, experiment = flagscale_data(mixture, "/t/tokenizer"), flagscale_experiment(mixture, "/elsewhere")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    folder = yaml.safe_load(yaml.safe_dump(experiment))["experiment"]["dataset_base_dir"]
    read = read_blend(tmp_path / "data.yaml", {"experiment.dataset_base_dir": folder})
    words = data_path(mixture, "/elsewhere/")
    assert [(entry.weight, entry.prefix) for entry in read] == [
        (float(weight), prefix) for weight, prefix in zip(words[::2], words[1::2], strict=True)
    ]
    assert data["data"]["split"] == 1 and data["data"]["tokenizer"]["vocab_size"] == 1000
    assert experiment["experiment"]["seed"] == 1


def test_a_folder_with_blanks_is_refused_for_lists_of_words(plan_and_folder: tuple[MixturePlan, MixtureFolder]) -> None:
    with pytest.raises(InputError, match="has blanks"):
        data_path(plan_and_folder[1], "/my data")


def test_a_folder_without_a_mixture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no mixture here"):
        read_mixture_folder(tmp_path)
    (tmp_path / "blend.json").write_text('{"train": [{}]}')
    (tmp_path / "vocabulary.json").write_text("{}")
    with pytest.raises(DatasetError, match="is not a mixture's"):
        read_mixture_folder(tmp_path)


def cut(path: Path) -> Iterator[int]:
    """The documents of a raw token file, by their numbers, each checked to be whole."""
    found: list[int] = []
    for token in np.fromfile(path, np.uint16).tolist():
        if token == END:
            assert len(set(found)) == 1 and len(found) + 1 == OWN[found[0]].tokens
            yield found[0]
            found = []
        else:
            found.append(token)
    assert not found


def test_token_files_hold_each_document_once_those_of_the_partial_epoch_first(
    plan_and_folder: tuple[MixturePlan, MixtureFolder], tmp_path: Path
) -> None:
    plan, mixture = plan_and_folder
    train, held = write_token_files(tmp_path, mixture)
    assert plan.sources[1].whole_epochs == 2 and plan.sources[1].partial_epoch is not None
    for shard, file in zip(mixture.train, train, strict=True):
        taken, order = documents(IndexedReader(mixture.folder / shard.prefix)), list(cut(tmp_path / file.name))
        assert sorted(order) == sorted(taken) and file.source == shard.source
        assert [taken[number] for number in order] == sorted(taken.values(), reverse=True)
        assert file.tokens == sum(OWN[number].tokens for number in order)
    assert sum(file.tokens for file in held) == sum(source.heldout_tokens for source in plan.sources)


def test_a_shard_that_is_raw_tokens_already_is_linked_and_not_copied(
    make_run: Callable[..., Run], recipe_from: Callable[..., Recipe], keep_all: Policy, tmp_path: Path
) -> None:
    run, recipe = (
        make_run(DOCS, part_rows=20),
        recipe_from(SOURCES.replace(", weight: 2", "").replace(", weight: 3", "")),
    )
    corpus = run.corpus(keep_all)
    target = run.root / "compact"
    write_compact_mixture(target, plan_mixture(recipe, corpus), recipe, corpus, vocabulary=write_vocabulary(run))
    train, _ = write_token_files(tmp_path / "raw", mixture := read_mixture_folder(target))
    for shard, file in zip(mixture.train, train, strict=True):
        assert os.path.samefile(tmp_path / "raw" / file.name, f"{mixture.folder / shard.prefix}.bin")


def test_ratios_ask_for_what_the_plan_gives_and_never_for_more_than_repeats_allow(
    plan_and_folder: tuple[MixturePlan, MixtureFolder], tmp_path: Path
) -> None:
    plan, mixture = plan_and_folder
    train, _ = write_token_files(tmp_path, mixture)
    sources = source_list(mixture, train, "s3://bucket/m")["sources"]
    assert sum(source["target_ratio"] for source in sources) == pytest.approx(1.0, abs=1e-12)
    assert sources[0]["max_repetition_ratio"] == 1.0 < sources[1]["max_repetition_ratio"]
    for source, planned in zip(sources, plan.sources, strict=True):
        stored = sum(file.tokens for file in train if file.source == planned.name)
        needed = int(plan.tokens_given * source["target_ratio"])  # as OLMo-core works it out
        assert planned.tokens_given - 1 <= needed <= int(stored * source["max_repetition_ratio"])
        assert source["max_repetition_ratio"] == pytest.approx(max(1, planned.tokens_given / stored), abs=1e-5)
        assert all(path.startswith("s3://bucket/m/train/") for path in source["paths"])


def test_olmo_core_builds_the_mixture_from_the_exported_files(
    plan_and_folder: tuple[MixturePlan, MixtureFolder], tmp_path: Path
) -> None:
    mixing = pytest.importorskip("olmo_core.data.source_mixture")
    from olmo_core.data import NumpyFSLDatasetConfig, NumpyPaddedFSLDatasetConfig

    plan, mixture = plan_and_folder
    export_lists(mixture.folder, target := tmp_path / "olmo", "olmo-core", None)
    assert len(mixing.SourceMixtureList.from_yaml(target / "sources.yaml").sources) == 2
    config = NumpyFSLDatasetConfig.from_yaml(target / "dataset.yaml")
    built = config.source_mixture_config.build(npdtype=config.get_dtype(), sequence_length=config.sequence_length)
    for outcome, planned in zip(built.sources, plan.sources, strict=True):
        given = sum(path.tokens for path in outcome.path_tokens)
        assert abs(given - planned.tokens_given) <= config.sequence_length * (len(outcome.path_tokens) + 1)
    config.work_dir = str(tmp_path / "work")
    dataset = config.build()
    dataset.prepare()
    assert dataset.dtype == np.uint16 and len(dataset[0]["input_ids"]) == 16
    seen = Counter(token for i in range(len(dataset)) for token in dataset[i]["input_ids"].tolist())
    taken = sum((documents(IndexedReader(mixture.folder / shard.prefix)) for shard in mixture.train), Counter[int]())
    missed = {number: times * (OWN[number].tokens - 1) - seen[number] for number, times in taken.items()}
    files = sum(len(outcome.path_tokens) for outcome in built.sources)
    assert set(seen) - {END} <= set(taken) and sum(map(abs, missed.values())) <= files * 16
    held = NumpyPaddedFSLDatasetConfig.from_yaml(target / "heldout.yaml")
    assert {row["label"] for row in held.metadata} == {"web", "wiki"} and all(map(os.path.exists, held.paths))


@pytest.mark.parametrize(
    ("form", "files"),
    [
        ("megatron", {"data_path.txt", "per_split.json"}),
        ("flagscale", {"data.yaml", "experiment.yaml"}),
        ("olmo-core", {"dataset.yaml", "sources.yaml", "heldout.yaml", "train", "heldout"}),
    ],
)
def test_the_command_writes_lists_a_card_and_a_tokenizer_that_transformers_opens(
    plan_and_folder: tuple[MixturePlan, MixtureFolder], tmp_path: Path, form: str, files: set[str]
) -> None:
    from transformers import AutoTokenizer

    from pipelines.cli import carry_out

    target, mixture = tmp_path / form, str(plan_and_folder[1].folder)
    assert carry_out(["export", str(target), "--format", form, "--mixture", mixture]) == 0
    assert {path.name for path in target.iterdir()} == files | {"README.md", "tokenizer"}
    assert AutoTokenizer.from_pretrained(target / "tokenizer").eos_token_id == END
    assert "{" not in (target / "README.md").read_text()
    assert carry_out(["export", str(target), "--format", form, "--mixture", mixture]) == 2
    assert carry_out(["export", str(tmp_path / "x"), "--format", "shards", "--mixture", mixture]) == 2


def test_a_dataset_config_reads_int32_ids_as_unsigned(plan_and_folder: tuple[MixturePlan, MixtureFolder]) -> None:
    from dataclasses import replace

    wide = replace(plan_and_folder[1], dtype="int32", sequence_length=None, seed=None, train=())
    assert dataset_config(replace(wide, train_tokens=0), [], "/d", "/t")["dtype"] == "uint32"


def test_the_tokenizer_in_the_fixture_is_one(make_run: Callable[..., Run]) -> None:
    data = (write_vocabulary(make_run(DOCS)) / "tokenizer.json").read_text()
    assert Tokenizer.from_str(data).id_to_token(END) == "<|endoftext|>"


def test_an_exported_list_is_adopted_again_with_the_same_texts_on_both_sides(
    plan_and_folder: tuple[MixturePlan, MixtureFolder], tmp_path: Path
) -> None:
    _, mixture = plan_and_folder
    export_lists(mixture.folder, tmp_path / "lists", "megatron", None)
    listed = tmp_path / "lists" / "per_split.json"
    vocabulary = {"size": 1000, "end_of_document": END, "dtype": "uint16"}
    adoption = Adoption(target=tmp_path / "again", heldout=10, vocabulary=vocabulary, decode=lambda ids: "x")
    adopt_blend(read_blend(listed, {}), adoption, read_validation(listed, {}))
    (tmp_path / "again" / "vocabulary.json").write_bytes((mixture.folder / "vocabulary.json").read_bytes())
    again = read_mixture_folder(tmp_path / "again")
    assert [shard.weight for shard in again.train] == [shard.weight for shard in mixture.train]
    for one, other in zip(mixture.train, again.train, strict=True):
        readers = [IndexedReader(side.folder / shard.prefix) for side, shard in ((mixture, one), (again, other))]
        assert documents(readers[0]) == documents(readers[1])
    held = [
        sum(IndexedReader(s.folder / p).num_tokens for ps in s.heldout.values() for p in ps) for s in (mixture, again)
    ]
    assert held[0] == held[1] > 0

"""The same samples in the same order as megatron-core gives, for every kind of shard that Gristmill writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.speed.megatron import Case, adopt_exported, equal_samples, equal_sequences, one_process
from mixtures.packed import pack_mixture
from mixtures.select import write_compact_mixture
from tests.stored_run import make_stored_run
from trainer.data.mixture import Mixture, open_mixture

PACKED = 50


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Mixture]:
    pytest.importorskip("megatron.core.datasets.gpt_dataset")
    root = tmp_path_factory.mktemp("megatron")
    run = make_stored_run(root)
    write_compact_mixture(root / "exported", run.plan, run.recipe, run.corpus, vocabulary=run.vocabulary)
    pack_mixture(root / "packed", run.mixture, PACKED)
    adopt_exported(root / "exported", root / "adopted")
    folders = {"store": run.mixture, **{name: root / name for name in ("exported", "packed", "adopted")}}
    return {name: open_mixture(Path(folder)) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    with one_process():
        yield


@pytest.mark.parametrize("kind", ["store", "exported", "packed", "adopted"])
@pytest.mark.parametrize(("seed", "length", "passes"), [(1, 16, 0.4), (7, PACKED, 2.7)])
def test_samples_are_megatrons(
    mixtures: dict[str, Mixture], alone: None, kind: str, seed: int, length: int, passes: float
) -> None:
    mixture = mixtures[kind]
    assert [equal_sequences(reader) for reader in mixture.readers] == [(len(r), len(r)) for r in mixture.readers]
    samples = int(passes * mixture.train_tokens) // length
    weights = tuple(shard.weight for shard in mixture.train)
    for blend in (weights, tuple(1.0 + i for i in range(len(weights)))):
        assert equal_samples(Case(mixture, blend, seed, length, samples)) == (samples, samples)

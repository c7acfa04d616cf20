"""The registry tells what each checkpoint is, whatever was killed, moved or dropped since."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from storage.errors import ModelError
from trainer.cli import main
from trainer.data.mixture import open_mixture
from trainer.registry.rows import read_rows
from trainer.registry.search import list_checkpoints, resolve
from trainer.settings import Preset
from trainer.train import train

MakePreset = Callable[..., Preset]
BATCH_TOKENS = 4 * 32


def quietly(mixture: Path, preset: Preset, out: Path) -> Path:
    return train(mixture, preset, out, tell=lambda _: None)


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["list", *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def twenty_steps(tmp_path_factory: pytest.TempPathFactory, mixture_folder: Path, make_preset: MakePreset) -> Path:
    """20 steps, a checkpoint every 4, of which the last two and every eighth step stay."""
    preset = make_preset(steps=20, save_every=4, keep_every=8, schedule="linear", warmup_fraction=0.0)
    return quietly(mixture_folder, preset, tmp_path_factory.mktemp("registry") / "run")


def test_every_saved_checkpoint_has_a_row_and_the_permanent_ones_stay(
    twenty_steps: Path, mixture_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = listed(capsys, str(twenty_steps), "--all")
    assert [row["step"] for row in rows] == [4, 8, 12, 16, 20]
    assert [row["step"] for row in rows if row["is_there"]] == [8, 16, 20]
    assert [row["name"] for row in rows][1] == "stage1-step8-tokens2K"
    mixture = open_mixture(mixture_folder)
    losses = {row["step"]: row["loss"] for row in map(json.loads, (twenty_steps / "metrics.jsonl").open())}
    for row in rows:
        step = int(str(row["step"]))
        assert row["tokens"] == row["tokens_in_all"] == step * BATCH_TOKENS and row["steps"] == 20
        assert row["lr"] == pytest.approx(1e-2 * (1 - step / 20)) and row["loss"] == losses[step]
        assert (row["stage"], row["ingredient"], row["seed"], row["parents"]) == (1, None, 1234, [])
        assert (row["mixture"], row["preset"]) == (mixture.identity, "smallest")
        assert (twenty_steps / str(row["data"])).resolve() == mixture_folder.resolve()
    scores = json.loads((twenty_steps / "evaluation.json").read_text())["sources"]
    assert rows[-1]["bits_per_byte"] == {name: score["bits_per_byte"] for name, score in scores.items()}


def test_permanent_checkpoints_have_a_rhythm_of_their_own(
    mixture_folder: Path, tmp_path: Path, make_preset: MakePreset
) -> None:
    quietly(mixture_folder, make_preset(steps=10, save_every=4, keep_every=3), tmp_path)
    assert [one.row.step for one in list_checkpoints([tmp_path])] == [3, 4, 6, 8, 9, 10]
    assert [one.row.step for one in list_checkpoints([tmp_path]) if one.is_there] == [3, 6, 9, 10]


def test_a_row_that_a_kill_prevented_is_made_anew_from_the_checkpoint(twenty_steps: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(twenty_steps, tmp_path / "elsewhere" / "run"))
    before = {one.row.step: one.row for one in list_checkpoints([twenty_steps]) if one.is_there}
    for file in (moved / "registry").iterdir():
        file.unlink()
    after = {one.row.step: one for one in list_checkpoints([tmp_path])}
    assert sorted(after) == [8, 16, 20] and all(one.folder.is_relative_to(moved) for one in after.values())
    for step, one in after.items():
        known = {**vars(before[step]), "saved_at": "", "bits_per_byte": {}}
        assert vars(one.row) == known


def test_a_row_of_other_content_is_not_believed(twenty_steps: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(twenty_steps, tmp_path / "run"))
    path = out / "registry/iter_0000020.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "identity": "0" * 32, "loss": 0.0}))
    row = next(one.row for one in list_checkpoints([out]) if one.row.step == 20)
    assert row.loss and not row.bits_per_byte


def test_duckdb_reads_the_rows(twenty_steps: Path) -> None:
    query = "SELECT name, step, lr, bits_per_byte FROM read_json(?) WHERE step >= 16 ORDER BY step"
    rows = duckdb.execute(query, [str(twenty_steps / "registry/*.json")]).fetchall()
    assert [row[:2] for row in rows] == [("stage1-step16-tokens3K", 16), ("stage1-step20-tokens3K", 20)]
    assert rows[1][3] == dict(read_rows(twenty_steps)[-1].bits_per_byte)


def test_names_and_paths_lead_to_a_checkpoint(twenty_steps: Path, tmp_path: Path) -> None:
    assert resolve(str(twenty_steps)) == twenty_steps / "iter_0000020"
    assert resolve(str(twenty_steps / "stage1-step8-tokens2K")) == twenty_steps / "iter_0000008"
    assert resolve(str(twenty_steps.parent / "stage1-step16-tokens3K")) == twenty_steps / "iter_0000016"
    with pytest.raises(ModelError, match="no checkpoint is `stage1-step4-tokens1K`; there are:\n    stage1-step16"):
        resolve(str(twenty_steps / "stage1-step4-tokens1K"))
    with pytest.raises(ModelError, match="there is no checkpoint here"):
        resolve(str(tmp_path / "nowhere"))
    shutil.copytree(twenty_steps, tmp_path / "one")
    shutil.copytree(twenty_steps, tmp_path / "two")
    with pytest.raises(ModelError, match="2 checkpoints are called"):
        resolve(str(tmp_path / "stage1-step20-tokens3K"))


def test_commands_and_new_runs_take_names(
    twenty_steps: Path,
    mixture_folder: Path,
    tmp_path: Path,
    make_preset: MakePreset,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = str(twenty_steps.parent / "stage1-step8-tokens2K")
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"text": "The miller grinds rye."}) + "\n")
    assert main(["evaluate", "--checkpoints", name, "--texts", str(texts), "--device", "cpu"]) == 0
    row = next(row for row in listed(capsys, str(twenty_steps)) if row["step"] == 8)
    assert "texts" in dict(row["results"])  # type: ignore[call-overload]
    before = (twenty_steps / "evaluation.json").read_bytes()
    assert main(["evaluate", "--checkpoints", name, "--data", str(mixture_folder), "--device", "cpu"]) == 0
    assert (twenty_steps / "evaluation.json").read_bytes() == before, "the run's own figures are those of its end"
    assert next(one.row for one in list_checkpoints([twenty_steps]) if one.row.step == 8).bits_per_byte
    quietly(mixture_folder, make_preset(steps=2, init_from=name), tmp_path / "next")
    (one,) = [one.row for one in list_checkpoints([tmp_path / "next"]) if one.is_there]
    assert one.name == "stage2-step2-tokens1K" and one.parents[0].name == "stage1-step8-tokens2K"


def test_the_table_names_what_is_there(twenty_steps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["list", str(twenty_steps)]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == "name step lr loss bits/byte mixture seed preset parents where".split()
    assert [row.split()[0] for row in rows] == [
        "stage1-step8-tokens2K",
        "stage1-step16-tokens3K",
        "stage1-step20-tokens3K",
    ]


def test_a_run_is_resumed_by_its_folder_alone(mixture_folder: Path, tmp_path: Path, make_preset: MakePreset) -> None:
    preset = make_preset(steps=12, save_every=6)
    quietly(mixture_folder, preset, tmp_path / "whole")
    quietly(mixture_folder, preset, tmp_path / "left")
    shutil.rmtree(tmp_path / "left/iter_0000012")
    (tmp_path / "left/evaluation.json").unlink()
    moved = (tmp_path / "left").rename(tmp_path / "moved")
    assert main(["resume", str(moved), "--log-every", "3"]) == 0
    name = "iter_0000012/model.safetensors"
    assert (moved / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert main(["resume", str(moved), "--learning-rate", "0.5"]) == 2
    assert main(["resume", str(tmp_path)]) == 2

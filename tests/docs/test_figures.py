"""Numbers in the documentation are those of the code: a default that moves takes its sentence with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from classifiers.encoders.encoder import EncoderConfig
from classifiers.quality.buckets import NUM_BUCKETS
from classifiers.quality.head import HeadConfig
from mixtures.plan import REFUSE_EPOCHS, WARN_EPOCHS
from mixtures.recipe import DEFAULT_MAX_EPOCHS
from pipelines.dedup.parameters import LEAST_RECALL, DedupConfig, candidate_probability
from pipelines.jobs.embedded import FIRST_DASHBOARD_PORT
from pipelines.raw_inputs import DEFAULT_PART_MEGABYTES
from pipelines.run_folder import RunFolder
from pipelines.sample.packages import DOWNLOAD_BYTES, SAMPLE_PACKAGES
from pipelines.search import DEFAULT_THRESHOLD
from pipelines.steps import STEPS
from sources.reading import ReadConfig
from trainer.settings import load_preset

WORDS = {6: "six", 16: "sixteen"}
DEDUP = DedupConfig()
SAID = [
    ("README.md", f"once ({round(DOWNLOAD_BYTES / 1e6)} MB)"),
    ("README.md", f"of {WORDS[len(SAMPLE_PACKAGES)]} packages"),
    ("README.md", f"for {load_preset('tiny').training.steps} steps"),
    ("docs/concepts.md", f"It has {WORDS[len(STEPS)]} steps"),
    ("docs/concepts.md", f"about {DEFAULT_PART_MEGABYTES:.0f} MB of text each"),
    ("docs/inputs/index.md", f"{ReadConfig().max_page_bytes >> 20} MiB"),
    ("docs/inputs/index.md", f"{ReadConfig().page_cpu_seconds:.0f} seconds of CPU time"),
    ("docs/guides/recipes.md", f"up to `max_epochs` ({DEFAULT_MAX_EPOCHS:g} if nothing is said"),
    ("docs/guides/recipes.md", f"Above {WARN_EPOCHS:g} epochs the plan warns, above {REFUSE_EPOCHS:g} it refuses"),
    ("docs/guides/quality.md", f"the first {EncoderConfig().max_tokens} tokens"),
    ("docs/guides/quality.md", f"fewer than {HeadConfig().min_examples} distinct texts"),
    ("docs/guides/quality.md", f"buckets** 0 to {NUM_BUCKETS - 1}"),
    ("docs/guides/deduplication.md", f"`min_similarity`, {DEFAULT_THRESHOLD:g} if nothing is said"),
    ("docs/guides/deduplication.md", f"{DEDUP.signature.bands} bands of {DEDUP.signature.rows}"),
    ("docs/guides/deduplication.md", f"at least {LEAST_RECALL:.0%}".replace("%", " %")),
    ("docs/guides/cluster.md", f"free port from\n{FIRST_DASHBOARD_PORT} on"),
]


@pytest.mark.parametrize(("page", "said"), SAID, ids=[f"{Path(page).stem}: {said}" for page, said in SAID])
def test_a_figure_is_the_one_of_the_code(page: str, said: str, project_root: Path) -> None:
    text = (project_root / page).read_text(encoding="utf-8")
    assert " ".join(said.split()) in " ".join(text.split())


def test_the_steps_are_listed_in_their_order(project_root: Path) -> None:
    text = (project_root / "docs" / "concepts.md").read_text(encoding="utf-8")
    table = text.partition("| step |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| (\w+) \|", table, re.MULTILINE) == list(STEPS)


def test_the_table_of_recall_is_right(project_root: Path) -> None:
    text = (project_root / "docs" / "guides" / "deduplication.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in text.splitlines() if line.startswith("|")]
    chances = {float(s): float(chance) for s, chance in zip(rows[0], rows[2], strict=True)}
    signature = DEDUP.signature
    assert chances == {s: round(candidate_probability(s, signature.bands, signature.rows), 3) for s in chances}


def test_the_run_folder_page_lists_every_place(project_root: Path) -> None:
    text = (project_root / "docs" / "guides" / "run-folder.md").read_text(encoding="utf-8")
    folder = RunFolder(Path("run"))
    named = [name for name, kind in vars(RunFolder).items() if isinstance(kind, property)]
    places = [getattr(folder, name).relative_to("run") for name in named]
    assert not [str(place) for place in places if f"`{place}" not in text]


def test_reasons_of_failures_are_those_of_the_readers(project_root: Path) -> None:
    """What the guide explains under `failures/ingest/` is what the readers write there."""
    guide = (project_root / "docs" / "guides" / "troubleshooting.md").read_text(encoding="utf-8")
    table = guide.partition("| reason |")[2].partition("\n\n")[0]
    explained = {name for line in table.splitlines()[2:] for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])}
    code = "\n".join(path.read_text(encoding="utf-8") for path in (project_root / "sources").rglob("*.py"))
    written = {f"{how}_compression" for how in ("truncated", "damaged") if f'"{how}"' in code}
    written |= set(re.findall(r'(?:failure|BadMessage|_Broken|Failed|Page|Line)\(\s*(?:[\w.]+, )?"([a-z_]+)"', code))
    written |= set(re.findall(r'Failure\(STAGE, [^"\n]*"([a-z_]+)"', code))
    assert explained == written

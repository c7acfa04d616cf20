"""What all tests share: the place of real data that is not part of the project, and a quiet environment."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background; commands under test get Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("steady")
"""`make test` draws the same examples everywhere; `pytest --hypothesis-profile=explore` draws new ones."""

ROOT = Path(__file__).resolve().parent.parent


IN_ORDER = ("flows", "pipelines", "house", "trainer")
"""A process takes two folders at the start: the longest one goes with the shortest."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `-n` a folder's tests run one after the other in one process, because they share what they build."""
    if not config.pluginmanager.hasplugin("xdist") or config.getoption("dist", "no") == "no":
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_folder(item)))
    items.sort(key=lambda item: IN_ORDER.index(_folder(item)) if _folder(item) in IN_ORDER else 99)


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT / "tests").parts[0]


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real captures that others own; set GRISTMILL_TEST_DATA to a folder like it, or these tests are skipped."""
    folder = Path(os.environ.get("GRISTMILL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "INDEX.md").exists():
        pytest.skip("the folder of real test data is not here (GRISTMILL_TEST_DATA)")
    return folder

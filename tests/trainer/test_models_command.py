"""The table of presets is counted, and the guide shows that very table."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.cli import main


def test_the_guide_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str], project_root: Path) -> None:
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    guide = (project_root / "docs" / "guides" / "models.md").read_text("utf-8")
    assert f"<!-- python -m trainer models -->\n{printed}\n" in guide


def test_a_shape_of_ones_own_is_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shape = "{hidden_size: 8, num_layers: 1, num_heads: 2, num_kv_heads: 1, ffn_size: 10, max_positions: 64}"
    (tmp_path / "mine.yaml").write_text(f"model: {shape}\ntraining: {{sequence_length: 4}}\n")
    assert main(["models", "--preset", str(tmp_path / "mine.yaml"), "--vocabulary", "100"]) == 0
    attention, ffn, norms = 8 * (8 + 4 + 4) + 8 * 8, 3 * 8 * 10, 3 * 8
    flops = 6 * (attention + ffn + 2 * 8 * 4 + 8 * 100) / 1e9
    row = f"| mine | llama | 1 | 8 | 100 | {800 + attention + ffn + norms:,} | 1,256 | 0 | {flops:.4g} |"
    assert capsys.readouterr().out.splitlines()[-1] == row

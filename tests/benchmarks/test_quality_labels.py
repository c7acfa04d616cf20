"""The labelled texts of the benchmark tell their labels by nothing but what is written in them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.quality.quality_labels import HEADING, LEVELS, _level_task, _register_tasks


def test_levels_have_no_marks_and_no_article_on_both_sides(shared_data: Path) -> None:
    task = _level_task(shared_data)
    sides = [set(each.table["group"].to_pylist()) for each in (task.training, task.test)]
    assert not sides[0] & sides[1] and len(sides[0]) + len(sides[1]) == 189
    for each in (task.training, task.test):
        texts, labels = each.table["text"].to_pylist(), each.table["label"].to_pylist()
        assert not [text for text in texts if text.startswith(("\ufeff", HEADING))]
        counts = Counter(labels)
        assert set(counts) == set(LEVELS) and max(counts.values()) - min(counts.values()) <= 1
        typographic = Counter(label for text, label in zip(texts, labels, strict=True) if "’" in text)
        assert min(typographic[level] / counts[level] for level in LEVELS) > 0.9


def test_registers_are_learned_in_one_language_and_tested_in_the_other(shared_data: Path) -> None:
    for task in _register_tasks(shared_data):
        languages = [set(each.table["language"].to_pylist()) for each in (task.training, task.test)]
        assert len(languages[0] | languages[1]) == 2 and not languages[0] & languages[1]

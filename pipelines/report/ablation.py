"""An ablation as a page: intervals beside each other for every held-out text, loss curves, and the tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipelines.comparison import arm_table, average_tables, say_seeds, sentences_of, table_of, texts_of
from pipelines.report.charts import Line, Span, line_chart, span_chart

CSS = Path(__file__).parent / "style.css"
SMOOTHING = 0.95


def render_ablation(result: Mapping[str, Any], losses: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """The page as HTML text. `losses`: points (tokens, loss) of one model of each experiment, by its name."""
    asked = result["request"]
    body = [
        f"<header><h1>{escape(result['name'])}</h1><p class='lead'>Bits per byte on held-out text, less is better: "
        f"mean and 95&nbsp;% interval over {say_seeds(asked['seeds'])}, {asked['tokens']:,} tokens each, "
        f"model {escape(asked['preset'])}.</p></header><main>",
        *(_text_section(result, text) for text in texts_of(result["runs"])),
        "<h2>Figures</h2>",
        _table(table_of(result)),
        "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences_of(result)) + "</ul>",
        *(f"<h3>Averages over {escape(axis)}</h3>{_table(rows)}" for axis, rows in average_tables(result).items()),
        "<h2>The data</h2>",
        _table(arm_table(result)),
        *_losses(losses),
        "</main>",
    ]
    head = f'<meta charset="utf-8"><title>{escape(result["name"])}</title><style>{CSS.read_text("utf-8")}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _text_section(result: Mapping[str, Any], text: str) -> str:
    spans = [
        Span(row["name"], found["mean"], found["low"], found["high"])
        for row in result["experiments"]
        for found in [row["bits_per_byte"][text]]
    ]
    return f"<h2>{escape(text.replace('_', ' '))}</h2>" + span_chart(
        spans, x_name="bits per byte", title=f"Bits per byte on {text}"
    )


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _losses(losses: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    charts = [
        f"<h3>{escape(name)}</h3>"
        + line_chart(
            [Line(name, _smooth(points))], x_name="tokens", y_name="loss (nats a token)", title=f"Loss: {name}"
        )
        for name, points in losses.items()
        if len(points) > 1
    ]
    return ["<h2>Training losses</h2><p class='soft'>On each one's own data, so not to be compared.</p>", *charts]


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    smooth: list[tuple[float, float]] = []
    for tokens, loss in points:
        smooth.append((tokens, loss if not smooth else SMOOTHING * smooth[-1][1] + (1 - SMOOTHING) * loss))
    return smooth


def read_losses(folder: Path) -> list[tuple[float, float]]:
    """Points (tokens, loss) of a model's metrics; none where it left no metrics."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(float(row["tokens"]), float(row["loss"])) for row in rows if row.get("loss") is not None]

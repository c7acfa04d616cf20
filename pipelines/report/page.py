"""Writing the page: findings and charts into the template, everything escaped, one file, committed atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from pipelines.report.charts import Line, line_chart
from pipelines.report.findings import QUALITY_BINS, STEPS, gather
from pipelines.report.mixture import plot_mixture, table_of
from pipelines.run_folder import RunFolder
from storage.commit import write_atomically

TEMPLATES = Path(__file__).parent
SMOOTHING = 0.9


def write_report(root: Path) -> Path:
    """Write `report.html` of the run at `root`; returns its path."""
    path = RunFolder(root).report
    write_atomically(path, render(gather(root)).encode())
    return path


def render(found: dict[str, Any]) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "words": lambda text: str(text).replace("_", " "),
        "bytes": say_bytes,
        "seconds": say_seconds,
        "amount": say_amount,
        "number": lambda value: "–" if value is None else f"{value:.3g}",
        "hex": lambda value: value.hex() if isinstance(value, bytes) else str(value),
        "percent": lambda value: f"{100 * value:.1f} %",
    }
    template = environment.get_template("template.html")
    css = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    drawn = {"loss": _loss_charts(found), "buckets": _buckets(found), **_mixture(found)}
    return template.render(css=css, **drawn, **_complete(found))


def _mixture(found: dict[str, Any]) -> dict[str, Any]:
    plans = found.get("plans") or []
    rows = found["results"]["plan"]["rows"] if plans else []
    warnings = [warning for plan in plans for warning in plan["warnings"]]
    return {"plots": [plot_mixture(plan) for plan in plans], "planned": table_of(rows), "plan_warnings": warnings}


def _complete(found: dict[str, Any]) -> dict[str, Any]:
    names = (
        "sources", "languages", "quality", "rules", "kept_samples", "dropped_samples", "clusters", "trainings",
        "evaluation", "contamination", "hosts", "duplicates", "scores",
    )  # fmt: skip
    results = {**dict.fromkeys(STEPS), **found["results"]}
    return {**dict.fromkeys(names), **found, "results": results}


def _loss_charts(found: dict[str, Any]) -> Markup:
    """A chart for each stage of training."""
    return Markup("").join(_loss_chart(one["metrics"], one["stage"]) for one in found.get("trainings") or [])


def _loss_chart(metrics: list[dict[str, Any]], stage: str | None) -> Markup:
    points = [(row["step"], row["loss"]) for row in metrics if row.get("loss") is not None]
    smooth: list[tuple[float, float]] = []
    for step, loss in points:
        smooth.append((step, loss if not smooth else SMOOTHING * smooth[-1][1] + (1 - SMOOTHING) * loss))
    lines = [Line("loss of each step", points, "line-faint"), Line("smoothed", smooth, "line-a")]
    title = "Training loss by step" if stage is None else f"Training loss of stage {stage} by step"
    return Markup(line_chart(lines, x_name="step", y_name="loss (nats a token)", title=title))


def _buckets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """By source: documents in each of the 20 buckets, scaled to the fullest."""
    rows = found.get("quality") or []
    sources = sorted({row["source"] for row in rows})
    counted = {(row["source"], row["bucket"]): row["documents"] for row in rows}
    result = []
    for source in sources:
        numbers = [counted.get((source, bucket), 0) for bucket in range(QUALITY_BINS)]
        result.append({"source": source, "numbers": numbers, "most": max(numbers)})
    return result


def say_bytes(number: float | None) -> str:
    """1,234,567 → 1.2 MB."""
    if number is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 1000 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return ""


def say_amount(number: float | None) -> str:
    """1,234,567 → 1.23 M."""
    if number is None:
        return "–"
    for size, unit in ((1e9, " B"), (1e6, " M")):
        if abs(number) >= size:
            return f"{number / size:.2f}{unit}"
    return f"{number:,.0f}"


def say_seconds(number: float | None) -> str:
    """75 → 1 min 15 s."""
    if number is None:
        return "–"
    if number < 60:
        return f"{number:.1f} s"
    minutes, seconds = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"

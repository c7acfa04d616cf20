"""The funnel: from records to kept documents, each loss with its reason and count; every line adds up."""

from __future__ import annotations

from typing import Any

from pipelines.run_folder import RunFolder, find_step


def funnel_rows(folder: RunFolder) -> list[dict[str, Any]]:
    """Rows `step`, `what`, `lost`, `left`: what is left after each loss. Steps not done yet are left out."""
    ingest, judge = find_step(folder, "ingest"), find_step(folder, "judge")
    if ingest is None:
        return []
    left = int(ingest.result["records"])
    rows: list[dict[str, Any]] = [{"step": "records read", "what": "", "lost": 0, "left": left}]
    for kind in ("skipped", "failures"):
        for reason, count in sorted(ingest.result[kind].items(), key=lambda item: (-item[1], item[0])):
            left -= count
            step = "skipped" if kind == "skipped" else "failed"
            rows.append({"step": step, "what": reason, "lost": count, "left": left})
    rows.append({"step": "documents", "what": "", "lost": 0, "left": left})
    rewrite = find_step(folder, "rewrite")
    for name, count in rewrite.result["rewritten"].items() if rewrite else ():
        rows.append({"step": "rewritten", "what": f"{name}: {count:,} documents", "lost": 0, "left": left})
    spans = find_step(folder, "spans")
    if spans and spans.result["cut"]:
        what = f"remove_repeated_spans: {spans.result['changed']:,} documents"
        rows.append({"step": "rewritten", "what": what, "lost": 0, "left": left})
    if judge is None:
        return rows
    for rule, count in sorted(judge.result["decided"].items(), key=lambda item: (-item[1], item[0])):
        left -= count
        rows.append({"step": "dropped", "what": rule, "lost": count, "left": left})
    rows.append({"step": "kept", "what": "", "lost": 0, "left": left})
    return rows

"""What each source lost to duplicates, from the ledger's own counts, and the alarm where it is more than a set share.

A share is of the documents that no other rule dropped: a source of which little else remains is judged on that little.
The counts stand in the manifest of the verdicts, so asking costs one small file whatever the corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixtures.decisions import duplicate_kinds
from pipelines.run_folder import RunFolder, find_step
from storage.manifests import find_manifest

DEFAULT_ALARM = 0.5


@dataclass(frozen=True, kw_only=True)
class SourceLoss:
    """A source's documents that passed all other rules: those `kept`, and by kind those `lost` to duplicates."""

    source: str
    kept: int
    lost: Mapping[str, int]

    @property
    def passed(self) -> int:
        return self.kept + sum(self.lost.values())

    @property
    def share(self) -> float:
        return 1 - self.kept / self.passed if self.passed else 0.0


def source_losses(folder: RunFolder) -> list[SourceLoss]:
    """Of every source of a judged run, the greatest share first; nothing before it is judged."""
    judged = find_step(folder, "judge")
    manifest = find_manifest(folder.decisions(str(judged.result["policy"])) / "verdicts") if judged else None
    if manifest is None:
        return []
    kinds = duplicate_kinds(manifest)
    losses = [_loss(source, counts, kinds) for source, counts in manifest.facts.get("sources", {}).items()]
    return sorted(losses, key=lambda loss: (-loss.share, loss.source))


def _loss(source: str, counts: Mapping[str, Any], kinds: Mapping[str, str]) -> SourceLoss:
    lost = {kind: int(counts["decided"].get(rule, 0)) for rule, kind in kinds.items()}
    return SourceLoss(source=source, kept=int(counts["kept"]), lost={kind: n for kind, n in lost.items() if n})


def alarms(losses: Sequence[SourceLoss], limit: float) -> list[str]:
    """A sentence for each source that lost more than the share `limit`."""
    return [_alarm(loss, limit) for loss in losses if loss.share > limit]


def _alarm(loss: SourceLoss, limit: float) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in loss.lost.items())
    return (
        f"the source `{loss.source}` lost {loss.share:.0%} of {loss.passed:,} documents to duplicates ({kinds}); "
        f"the alarm stands at {limit:.0%}"
    )

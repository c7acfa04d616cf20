"""Names of checkpoints as OLMo publishes them: `stage1-step1000-tokens5B`, `stage2-ingredient1-step23852-tokens51B`.

Tokens are those of the stage, rounded up to whole billions as OLMo's are (its 7B and 13B of 2024 name nominal counts,
`step11931-tokens50B` for 50.04 B). OLMo has no name for less: ours go on in millions and thousands (`tokens12M`,
`tokens640K`), and an average of ingredients, which OLMo calls `main`, is `stage2-soup-step11931-tokens50B`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

UNITS = {"B": 10**9, "M": 10**6, "K": 10**3}
PATTERN = re.compile(
    r"stage(?P<stage>[1-9]\d*)(?:-ingredient(?P<ingredient>[1-9]\d*)|-(?P<soup>soup))?"
    r"-step(?P<step>\d+)-tokens(?P<tokens>\d+)(?P<unit>[BMK])"
)


@dataclass(frozen=True, kw_only=True)
class CheckpointName:
    """The parts of a name. `tokens` is rounded as it is written; `ingredient` is None for a stage with only one."""

    stage: int
    step: int
    tokens: int
    unit: str = "B"
    ingredient: int | None = None
    soup: bool = False

    def __str__(self) -> str:
        part = "-soup" if self.soup else f"-ingredient{self.ingredient}" if self.ingredient else ""
        return f"stage{self.stage}{part}-step{self.step}-tokens{self.tokens}{self.unit}"


def name_checkpoint(
    *, stage: int, step: int, tokens: int, ingredient: int | None = None, soup: bool = False
) -> CheckpointName:
    """The name of a checkpoint after `step` steps and exactly `tokens` tokens of its stage."""
    unit = next((unit for unit, size in UNITS.items() if tokens >= size), "K") if tokens else "B"
    rounded = -(-tokens // UNITS[unit])
    return CheckpointName(stage=stage, step=step, tokens=rounded, unit=unit, ingredient=ingredient, soup=soup)


def parse_name(text: str) -> CheckpointName | None:
    """The parts of a name, or None for what is none."""
    found = PATTERN.fullmatch(text)
    if found is None:
        return None
    return CheckpointName(
        stage=int(found["stage"]),
        step=int(found["step"]),
        tokens=int(found["tokens"]),
        unit=found["unit"],
        ingredient=int(found["ingredient"]) if found["ingredient"] else None,
        soup=found["soup"] is not None,
    )

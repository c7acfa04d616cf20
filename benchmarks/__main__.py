"""`python -m benchmarks NAME [options]`: run one benchmark, wherever it stands."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PEERS = Path(os.environ.get("GRISTMILL_PEERS", FOLDER.parent / ".cache" / "peers"))
"""Where the peers are installed, with packages of theirs that Gristmill has too: so it comes last on the path."""

ALSO_CALLED = {"judge": "annotation"}
"""Other names by which people ask for a benchmark."""


def names() -> dict[str, str]:
    """Every benchmark by name, and its module: a file under speed/, quality/ or outcome/ with a `main(arguments)`."""
    files = (file for kind in ("speed", "quality", "outcome") for file in sorted((FOLDER / kind).glob("[!_]*.py")))
    found = {file.stem: f"benchmarks.{file.parent.name}.{file.stem}" for file in files}
    return found | {other: found[name] for other, name in ALSO_CALLED.items()}


def main(arguments: list[str]) -> int:
    """Run the benchmark that the first argument names; the rest are its own."""
    found = names()
    name = arguments[0].replace("-", "_") if arguments else ""
    if name not in found:
        print(f"usage: make bench-NAME, where NAME is one of: {', '.join(found) or 'none yet'}", file=sys.stderr)
        return 2
    sys.path.append(str(PEERS))
    module = importlib.import_module(found[name])
    return int(module.main(arguments[1:]) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

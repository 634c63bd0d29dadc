"""How benchmarks say what they do and what came of it."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def say(text: str) -> None:
    """A line of progress, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def tell(result: Mapping[str, Any], out: Path | None) -> None:
    """The result as JSON on standard output, and in a file where one is named."""
    text = json.dumps(result, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")

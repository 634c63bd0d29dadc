"""`msam demo`: the main job, whole."""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from streams.errors import MsamError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    data: Annotated[
        Path | None, typer.Option(help="Folder with plays.csv and what else there is; default: simulated.")
    ] = None,
    plays: Annotated[int | None, typer.Option(min=1, help="How many plays to stream; default: all.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep broker data, models and logs, and say where.")] = False,
    out: Annotated[Path | None, typer.Option(help="Directory of this run; default: a temporary one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON line.")] = False,
) -> None:
    """Broker, topics, data, first model, worker, trainer, plays in, lists out, a hot swap and a cold track."""
    if data is not None and not (data / "plays.csv").is_file():
        raise MsamError(f"{data} holds no plays.csv; `msam simulate` makes such a folder")
    folder = Path(tempfile.mkdtemp(prefix="msam-demo-")) if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "kafka").exists():
        raise MsamError(f"{folder} holds an earlier run; remove it or choose another --out")
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", file=sys.stderr, flush=True)

    good = False
    try:
        summary = _run(data, plays, folder, say)
        good = True
    finally:
        if out is None and not keep and good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"logs, models and data: {folder}")
    if as_json:
        print(json.dumps(summary))
    else:
        _show(summary)


def _run(data: Path | None, plays: int | None, folder: Path, say: Any) -> dict[str, Any]:
    from streams.demo.run import run
    from streams.local_kafka import LocalKafka
    from streams.settings import load_settings
    from streams.topics import create_topics, topic_specs

    if data is None:
        from msam.simulate import SimulationConfig, simulate

        data = folder / "data"
        say("simulating listeners, tracks and clips (made up, and labelled so)")
        simulate(SimulationConfig(), data)
    say("starting Kafka")
    with LocalKafka(folder / "kafka") as broker:
        env = {
            "MSAM_BOOTSTRAP": broker.bootstrap,
            "MSAM_HOME": str(folder),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        os.environ.update(env)
        # Every partition costs a transaction a batch; one for each core keeps the machine busy (decision 7).
        os.environ.setdefault("MSAM_PARTITIONS", str(min(4, os.cpu_count() or 1)))
        settings = load_settings()
        config = {**settings.kafka_config(), "log_level": "3"}  # not what it warns of and tries again by itself
        create_topics(config, topic_specs(settings.partitions, settings.group))
        return run(config, data, folder, plays, env, say) | {"partitions": settings.partitions}


def _show(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value", title="msam demo")
    for name, value in summary.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {inner}" for key, inner in value.items())
        elif isinstance(value, list):
            value = "\n".join(", ".join(f"{k} {v}" for k, v in item.items() if v is not None) for item in value)
        table.add_row(name, str(value))
    Console().print(table)

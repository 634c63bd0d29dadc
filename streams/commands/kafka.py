"""`msam kafka start|stop|status`: the local broker."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streams.local_kafka import KafkaStatus, LocalKafka

app = typer.Typer()

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The broker's directory; default: kafka under home.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def start(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: the last one, or a free one.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Start the local broker, or find it running; returns when it serves."""
    broker = _broker(data_dir, port)
    broker.start()
    _show(broker.status(), as_json)


@app.command()
def stop(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Stop the local broker; its data stays."""
    broker = _broker(data_dir)
    stopped = broker.stop()
    if as_json:
        print(json.dumps({"stopped": stopped, **asdict(broker.status())}))
    else:
        print("stopped" if stopped else "no broker was running")


@app.command()
def status(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Say whether the local broker runs, and where."""
    _show(_broker(data_dir).status(), as_json)


def _broker(data_dir: Path | None, port: int | None = None) -> "LocalKafka":
    from streams.local_kafka import LocalKafka
    from streams.settings import load_settings

    return LocalKafka(data_dir or load_settings().home / "kafka", port=port, detached=True)


def _show(found: "KafkaStatus", as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(found)))
    elif not found.running:
        print(f"no broker runs in {found.data_dir}")
    else:
        memory = f"{(found.memory_bytes or 0) / 2**20:.0f} MiB, up {found.uptime_seconds or 0:.0f} s"
        print(f"Kafka {found.version} serves {found.bootstrap} (pid {found.pid}, {memory}), log {found.log_path}")

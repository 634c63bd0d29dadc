"""`msam trainer`: train from the log, gate, announce."""

import json
import os
import re
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Annotated

import typer

from streams.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(trainer)


def trainer(
    once: Annotated[bool, typer.Option("--once", help="Train once and end.")] = False,
    every: Annotated[str, typer.Option(help="Time between trainings: 90s, 10m, 2h.")] = "10m",
    max_seconds: Annotated[float | None, typer.Option(min=1, help="Time budget of the network's training.")] = 45.0,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the plays.")] = 10,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    published: Annotated[bool, typer.Option("--published", help="The paper's model without extensions.")] = False,
    cold_share: Annotated[
        bool, typer.Option("--cold-share", help="New tracks get as many places of lists as listeners give them plays.")
    ] = False,
    margin: Annotated[float, typer.Option(min=0, help="How much worse than the best live version may go live.")] = 0.02,
    bootstrap: Annotated[str | None, typer.Option(help="Kafka bootstrap servers; default: the local broker.")] = None,
    model_store: Annotated[Path | None, typer.Option(help="Directory of model artifacts.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a model version.")] = False,
) -> None:
    """Train on the plays in the log from where the live model stands; what passes the gate goes live.

    What then proves worse than the version before, by the plays that follow its lists, is rolled back.
    """
    pause = seconds(every)
    if published and cold_share:
        raise ConfigError("--cold-share is an extension, and --published is the paper's model without any")
    from streams.settings import load_settings

    settings = load_settings(bootstrap=bootstrap, model_store=model_store)
    settings.servers()
    import torch

    from msam.config import MSAMConfig, TrainConfig
    from streams.trainer import Gate, NothingToTrain, Trainer, describe
    from streams.watch import watch

    torch.set_num_threads(1)
    os.nice(10)  # plays come first
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", file=sys.stderr, flush=True)

    dim = MSAMConfig().dim if published else settings.dim
    job = Trainer(
        settings,
        model=MSAMConfig(dim=dim, hidden=dim, window=settings.window, published=published, cold_share=cold_share),
        training=TrainConfig(epochs=epochs, max_seconds=max_seconds, seed=seed),
        gate=Gate(margin=margin),
        say=say,
    )
    rule = settings.rollback()
    if rule is not None and not once:
        Thread(target=watch, args=(settings.kafka_config(), rule, say), name="watch", daemon=True).start()
    while True:
        try:
            version = job.once()
            print(json.dumps(describe(version)) if as_json else f"{version.version} {version.state}", flush=True)
        except NothingToTrain as error:
            if once:
                raise
            say(str(error))
        if once:
            return
        time.sleep(pause)


def seconds(text: str) -> float:
    """A duration such as 90s, 10m or 2h in seconds.

    >>> seconds("10m")
    600.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None or float(found[1]) == 0:
        raise ConfigError(f"{text!r} is not a duration; write 90s, 10m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]

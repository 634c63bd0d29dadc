"""`msam worker`: one Faust worker; run more of them for scale."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from streams.errors import ConfigError, MsamError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(
    roles: Annotated[str, typer.Option(help="Comma-separated: plays, tracks, audio.")] = "plays,tracks,audio",
    data_dir: Annotated[Path | None, typer.Option(help="This worker's state; no two workers may share one.")] = None,
    bootstrap: Annotated[str | None, typer.Option(help="Kafka bootstrap servers; default: the local broker.")] = None,
    group: Annotated[str | None, typer.Option(help="Consumer group; workers of one group share the plays.")] = None,
    model_store: Annotated[Path | None, typer.Option(help="Directory of model artifacts.")] = None,
    audio_root: Annotated[list[Path] | None, typer.Option(help="Folder audio may be read from; repeatable.")] = None,
    web_port: Annotated[int | None, typer.Option(help="Port of health, metrics and lists; 0 picks one.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_json: Annotated[bool, typer.Option("--json", help="Log as JSON lines on standard output.")] = False,
) -> None:
    """Answer plays with lists, and turn track metadata and audio into features."""
    from streams.memory import few_arenas
    from streams.settings import load_settings

    few_arenas()
    chosen = frozenset(role.strip() for role in roles.split(",") if role.strip())
    settings = load_settings(
        bootstrap=bootstrap,
        group=group,
        data_dir=data_dir,
        model_store=model_store,
        audio_roots=tuple(audio_root) if audio_root else None,
        web_port=web_port,
    )
    from streams.app import ROLES, create_app
    from streams.topics import check_topics, topic_specs

    if not chosen or chosen - set(ROLES):
        raise ConfigError(f"--roles takes {', '.join(ROLES)}, not {roles!r}")
    wrong = check_topics(settings.kafka_config(), topic_specs(settings.partitions, settings.group))
    if wrong:
        raise MsamError(f"topics are not as they must be: {'; '.join(wrong)}; `msam topics create` makes missing ones")
    _run(create_app(settings, chosen), log_level, log_json)


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Time (Unix seconds), level, logger, message and, where there is one, the traceback."""
        import json

        line = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _run(app: Any, log_level: str, log_json: bool) -> None:
    import faust
    import torch

    torch.set_num_threads(1)  # the same bits whatever the machine's load, and room for the other threads
    handler = logging.StreamHandler(sys.stdout if log_json else sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if log_json else plain)
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    for noisy in ("faust", "mode", "aiokafka"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(log_level.upper())))
    run = faust.Worker(app, quiet=True, loglevel=None, override_logging=False, redirect_stdouts=False)
    code: object = 1
    try:
        run.execute_from_commandline()
    except SystemExit as ended:
        code = ended.code
    except Exception:
        logging.getLogger(__name__).exception("the worker crashed")
    finally:  # a crashed worker must not linger on a thread that waits for the broker: what counts is committed
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))

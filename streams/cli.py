"""The command `msam`: mounts the groups of `streams.commands` and turns our errors into one clear line."""

import sys
from importlib import import_module

import typer

from msam.errors import MethodError
from streams.errors import MsamError

GROUPS = {"kafka": "Local Kafka broker.", "topics": "Create and check topics.", "publish": "Publish events."}
GROUPS |= {"models": "Model versions.", "dlq": "Dead letters.", "users": "Listeners."}
GROUPS |= {"simf": "Similarity-constrained matrix factorisation."}
COMMANDS = ("import", "simulate", "tail", "worker", "trainer", "recommend", "replay", "doctor", "demo", "evaluate")


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="msam",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Event-driven music recommendation: plays in on one Kafka topic, fresh top-N lists out on another.",
    )
    for name, text in GROUPS.items():
        app.add_typer(import_module(f"streams.commands.{name}").app, name=name, help=text, no_args_is_help=True)
    for name in COMMANDS:
        import_module(f"streams.commands.{name}").register(app)
    return app


def main() -> None:
    """Entry point: exit 0 done, 1 failed with one line on stderr, 2 wrong usage, 130 interrupted."""
    try:
        build()()
    except (MsamError, MethodError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if type(error).__name__ != "KafkaException":  # by name: the client is not imported just to start up
            raise
        print(f"error: Kafka: {error}; is the broker reachable?", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

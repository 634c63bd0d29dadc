"""`msam topics create|check`: bring the topics about, or say what differs."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streams.topics import TopicSpec

app = typer.Typer()

Bootstrap = Annotated[str | None, typer.Option("--bootstrap", help="Kafka servers; default: the local broker.")]
Group = Annotated[str | None, typer.Option("--group", help="Group whose windows changelog is meant.")]
Partitions = Annotated[
    int | None, typer.Option("--partitions", min=1, help="Partitions of topics keyed by user or track.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def create(
    bootstrap: Bootstrap = None, partitions: Partitions = None, group: Group = None, as_json: Json = False
) -> None:
    """Create the topics that are missing; existing ones are left as they are."""
    from streams.topics import create_topics

    config, specs = _wanted(bootstrap, partitions, group)
    created = create_topics(config, specs)
    if as_json:
        existed = [spec.name for spec in specs if spec.name not in created]
        print(json.dumps({"created": created, "existed": existed}))
    else:
        print(f"created {', '.join(created)}" if created else "nothing to create")


@app.command()
def check(
    bootstrap: Bootstrap = None, partitions: Partitions = None, group: Group = None, as_json: Json = False
) -> None:
    """Say what differs between the topics as declared and as they are; exit 1 if anything does."""
    from streams.topics import TopicError, check_topics

    config, specs = _wanted(bootstrap, partitions, group)
    differences = check_topics(config, specs)
    if as_json:
        print(json.dumps({"topics": len(specs), "differences": differences}))
    else:
        print("\n".join(differences) or f"{len(specs)} topics are as declared")
    if differences:
        raise TopicError(f"{len(differences)} differences between the topics as declared and as they are")


def _wanted(
    bootstrap: str | None, partitions: int | None, group: str | None
) -> "tuple[dict[str, str], list[TopicSpec]]":
    from streams.settings import load_settings
    from streams.topics import topic_specs

    settings = load_settings(bootstrap=bootstrap, partitions=partitions, group=group)
    return settings.kafka_config(), topic_specs(settings.partitions, settings.group)

"""`msam recommend USER`: one user's list as of now, and why."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Annotated, Any

import typer

from streams.errors import MsamError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(recommend)


def recommend(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    n: Annotated[int, typer.Option(min=1, max=1000, help="Length of the list.")] = 20,
    explain: Annotated[bool, typer.Option("--explain", help="Show the reasons of every track.")] = False,
    worker: Annotated[str | None, typer.Option(help="The worker's URL; default: this machine's web port.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Ask a running worker for a fresh list of one user."""
    from streams.settings import load_settings

    settings = load_settings()
    base = worker or f"http://{settings.web_host}:{settings.web_port}"
    path = f"/recommendations/{urllib.parse.quote(user, safe='')}?n={n}"
    found = _ask(base.rstrip("/") + path, base, settings.web_token())
    if as_json:
        print(json.dumps(found))
        return
    print(f"{user}: model {found['model_version']}, catalogue {found['catalogue_version']}")
    for item in found["items"]:
        print(
            f"{item['rank']:4d}  {item['score']:.4f}  {item['track_id']}" + (_why(item["reasons"]) if explain else "")
        )


def _ask(url: str, base: str, token: str | None = None) -> dict[str, Any]:
    try:
        request = urllib.request.Request(url, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        with error:
            raise MsamError(_reason(error, base)) from error
    except (OSError, ValueError) as error:
        raise MsamError(f"no worker answers at {base}: start one with `msam worker`, or pass --worker URL") from error


def _reason(error: urllib.error.HTTPError, base: str) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"{base} answers {error.code} {error.reason}; is it a worker?"


def _why(reasons: dict[str, Any]) -> str:
    text = f"  {reasons['kind']}"
    if reasons["because"] is None:
        return text
    text += f", near {reasons['because']} (sound {reasons['audio']:.2f}, words {reasons['text']:.2f}"
    text += f", order {reasons['sequence']:.2f}"
    if reasons["audio_group"]:
        text += f"; heard {reasons['audio_group']}"
    if reasons["word"]:
        text += f"; read “{reasons['word']}”"
    return text + ")"

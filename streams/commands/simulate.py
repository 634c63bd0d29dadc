"""`msam simulate`: simulated listeners, tracks, tags and clips."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def simulate(
    out: Annotated[Path, typer.Option(help="Folder to write: empty, or an earlier simulation.")],
    users: Annotated[int, typer.Option(min=1, help="Listeners.")] = 40,
    tracks: Annotated[int, typer.Option(min=2, help="Tracks.")] = 300,
    plays: Annotated[int, typer.Option(min=1, help="Plays of all listeners together.")] = 6000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    clips: Annotated[int | None, typer.Option(min=0, help="Tracks with sound; default: 120 or all.")] = None,
    clip_seconds: Annotated[float, typer.Option(min=1, max=60, help="Length of a clip in seconds.")] = 4.0,
    shares: Annotated[
        str | None,
        typer.Option(help="Parts of liking, as audio=0.5,text=0.3,time=0.2; there are artist and popularity, too."),
    ] = None,
    heed: Annotated[bool, typer.Option("--heed", help="Every listener heeds one group of audio descriptors.")] = False,
    apart: Annotated[bool, typer.Option("--apart", help="Sound and words tell nothing of each other.")] = False,
    coherence: Annotated[float, typer.Option(help="How much of a track's style is its artist's, 0 to 1.")] = 0.75,
    once: Annotated[bool, typer.Option("--once", help="Nobody plays a track again but by --repeat.")] = False,
    repeat: Annotated[float, typer.Option(help="Probability of a play of the listener's own last ones.")] = 0.25,
    new: Annotated[float, typer.Option(help="Share of the tracks that is released during the plays.")] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Simulated listeners, tracks, tags and synthesised clips that belong together."""
    from rich.console import Console
    from rich.progress import Progress

    from msam.simulate import Shares, SimulationConfig
    from msam.simulate import simulate as run

    config = SimulationConfig(
        users,
        tracks,
        plays,
        seed,
        min(120, tracks) if clips is None else clips,
        clip_seconds,
        shares=Shares() if shares is None else Shares.parse(shares),
        repeat=repeat,
        new=new,
        heed=heed,
        apart=apart,
        once=once,
        coherence=coherence,
    )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("clips", total=config.clips)
        summary = run(config, out, lambda done, every: progress.update(task, completed=done, total=every))
    if as_json:
        print(json.dumps(summary))
        return
    Console().print(
        f"simulated: {summary['users']} users, {summary['tracks']} tracks, {summary['plays']} plays, "
        f"{summary['clips']} clips in {out}",
        highlight=False,
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(simulate)

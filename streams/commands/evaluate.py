"""`msam evaluate`: the paper's table and figures, for every system, on a listening log."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from msam.evaluation.runs import Plan


def evaluate(
    plays: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="plays.csv")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for tables, figures and runs.")],
    tracks: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="tracks.csv")] = None,
    users: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="users.csv")] = None,
    audio: Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="Clips named by track_id.")] = None,
    level: Annotated[Literal["artist", "track"], typer.Option(help="What is ranked.")] = "artist",
    protocol: Annotated[
        Literal["split", "prequential"], typer.Option(help="Fixed split, or score each play and then learn it.")
    ] = "split",
    systems: Annotated[str, typer.Option(help="Names with commas between; default: all but ablations.")] = "",
    runs: Annotated[int, typer.Option(min=1, help="Seeds of every system that a seed changes.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first run.")] = 0,
    age: Annotated[int, typer.Option(min=1, help="Prequential: plays until everyone's counts are refreshed.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Processes; default: one a core.")] = os.cpu_count() or 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Tables, figures and one HTML report; goes on where an earlier run with the same --out stopped."""
    from msam.baselines import ABLATIONS, SYSTEMS, able
    from msam.evaluation.prepare import Sources
    from msam.evaluation.runs import Plan

    names = tuple(dict.fromkeys(name.strip() for name in systems.split(",") if name.strip()))
    left_out = [] if names else [name for name in SYSTEMS if not able(name)]
    names = names or tuple(name for name in SYSTEMS if name not in (*ABLATIONS, *left_out))
    plan = Plan(Sources(plays, tracks, users, audio), level, protocol, names, runs, seed, age)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {text}", file=sys.stderr, flush=True)

    if left_out:
        say(f"left out: {', '.join(left_out)}; pip install 'msam[peers]' brings them")
    summary = run(plan, out, jobs, say)
    print(json.dumps(summary) if as_json else (out / "table1.md").read_text(encoding="utf-8"))


def run(plan: "Plan", out: Path, jobs: int, say: Callable[[str], None]) -> dict[str, object]:
    """Run what is missing, write everything, and return what `--json` prints."""
    from rich.console import Console
    from rich.progress import Progress

    from msam.evaluation.prepare import EvaluationError, plays_only, prepare
    from msam.evaluation.protocols import targets
    from msam.evaluation.report import write_all
    from msam.evaluation.runs import finished, lacking, run_all
    from msam.evaluation.tables import HEADLINE, Report, spread

    bare = plays_only(plan.sources, plan.level, say)
    if not len(targets(bare)):
        raise EvaluationError(f"{plan.sources.plays}: no user has enough plays to score the last fifth of them")
    lacks = lacking(plan)
    able = replace(plan, systems=tuple(name for name in plan.systems if name not in lacks))
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        total = sum(len(able.runs_of(name)) for name in able.systems)
        task = progress.add_task("runs", total=total)

        def done(name: str, number: int) -> None:
            progress.advance(task)
            say(f"{name} run {number + 1}/{len(able.runs_of(name))}")

        run_all(able, out / "runs", lambda: prepare(plan.sources, plan.level, say=say), jobs, done)
    report = Report(plan, bare, finished(able, out / "runs"), lacks)
    write_all(report, out)
    return {
        "out": str(out),
        "protocol": plan.protocol,
        "level": plan.level,
        "plays_scored": len(report.relevant),
        "best_reachable_p@20": report.best_precision,
        "systems": {
            result.system: {
                metric: dict(zip(("mean", "std"), spread(result, metric), strict=True)) for metric in HEADLINE
            }
            if result.runs
            else {"n/a": result.lacks}
            for result in report.results
        },
        "cpu_minutes": {result.system: result.cpu_minutes() for result in report.ran()},
        "paired": [
            {"mine": c.mine, "other": c.other, "metric": c.metric, **c.by_session._asdict(), "p_by_user": c.by_user.p}
            for c in report.comparisons()
        ],
    }


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)

"""`msam simf fit|complete`: factorise relation files, and score held-out relations."""

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from msam.simf import SiMFState

app = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback()
def simf() -> None:
    """Similarity-constrained matrix factorisation."""


@app.command()
def fit(
    relation: Annotated[list[str], typer.Option(help="TYPE-TYPE=FILE.csv, as user-artist=plays.csv; repeat it.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the state and the report of convergence.")],
    network: Annotated[list[str] | None, typer.Option(help="TYPE=FILE.csv, as user=friends.csv; repeat it.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Values of relations are counts: take log(1 + value).")] = False,
    dim: Annotated[int, typer.Option(min=1, help="Columns of every factor.")] = 100,
    beta: Annotated[float, typer.Option(min=0, help="Weight of the similarity; 0: plain DFMF.")] = 0.01,
    ridge: Annotated[float, typer.Option(min=0, help="Weight of the squared norms.")] = 1e-4,
    tau: Annotated[float, typer.Option(min=0, help="Temperature of the network weights.")] = 0.1,
    degree_power: Annotated[float, typer.Option(min=0, max=1, help="Scale links by (degree x degree)^-power.")] = 0.5,
    neighbours: Annotated[int, typer.Option(min=1, help="Neighbours in the similarity graphs.")] = 10,
    max_sweeps: Annotated[int, typer.Option(min=1, help="Most sweeps; a later call may raise it.")] = 50,
    tol: Annotated[float, typer.Option(min=0, help="Stop when O falls by less than this part.")] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bits.")] = 0,
    as_json: Json = False,
) -> None:
    """Fit SiMF on relation files (two columns of ids, maybe one of values); goes on where an earlier call stopped."""
    from rich.console import Console
    from rich.progress import Progress

    from msam.simf import SiMFConfig
    from msam.simf.files import STATE, done, fit_in, read_relations

    pairs = {_pair(name): path for name, path in map(_named, relation)}
    built = read_relations(pairs, [_named(one) for one in network or ()], log)
    config = SiMFConfig(
        dim=dim,
        beta=beta,
        ridge=ridge,
        tau=tau,
        degree_power=degree_power,
        neighbours=neighbours,
        max_sweeps=max_sweeps,
        tol=tol,
        seed=seed,
    )
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("sweeps", total=max_sweeps)

        def swept(sweep: int, value: float) -> None:
            progress.update(task, completed=sweep, description=f"O {value:.6g}")

        state = fit_in(out, built, config, swept)
    report = {"state": str(out / STATE), "version": state.version, **_report(state), "done": done(state, config)}
    report["links"] = {f"{i}-{j}": matrix.nnz for (i, j), matrix in sorted(built.relations.items())}
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(report))
        return
    print(f"{len(state.history)} sweeps, O {state.history[0]:.6g} -> {state.history[-1]:.6g}, in {out}")
    for name, weights in state.weights.items():
        print(f"network weights of {name}: {', '.join(f'{weight:.4f}' for weight in weights)}")


def _report(state: "SiMFState") -> dict[str, object]:
    """The convergence of a fit: O after each sweep, and the sweeps (from 0) before which S was rebuilt."""
    return {
        "objects": {name: len(ids) for name, ids in state.types.items()},
        "sweeps": len(state.history),
        "objective": list(state.history),
        "refreshes": list(state.refreshes),
        "weights": {name: weights.tolist() for name, weights in state.weights.items()},
    }


@app.command()
def complete(
    state: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of `msam simf fit`.")],
    relation: Annotated[str, typer.Option(help="TYPE-TYPE=FILE.csv: the held-out links.")],
    known: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Links not to be ranked: those of the fit.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Length of the lists.")] = 20,
    scores: Annotated[Path | None, typer.Option(dir_okay=False, help="CSV to write: every link and its score.")] = None,
    as_json: Json = False,
) -> None:
    """Score held-out links: NDCG@n and recall@n of each row's list of what it is not linked to yet."""
    import numpy as np

    from msam.errors import MethodError
    from msam.evaluation import completion
    from msam.evaluation.statistics import clustered
    from msam.simf import matrix_from_counts
    from msam.simf.files import load_state, read_links

    fitted = load_state(state)
    name, path = _named(relation)
    i, j = _pair(name)
    if (i, j) not in fitted.cores:
        raise MethodError(
            f"the fit has no relation {name}, only {', '.join('-'.join(p) for p in sorted(fitted.cores))}"
        )
    links = read_links(path)
    ids = fitted.types[i], fitted.types[j]
    held = matrix_from_counts(links, *ids)
    met = matrix_from_counts(read_links(known) if known else {}, *ids)
    found = completion.judge(lambda rows: completion.scores(fitted, i, j, rows), met, held, n)
    told = {
        f"{metric}@{n}": clustered(values, np.arange(len(values)))._asdict()
        for metric, values in (("ndcg", found.ndcg), ("recall", found.recall))
    }
    if scores is not None:
        rows, columns = held.nonzero()
        values = completion.scores(fitted, i, j, np.arange(held.shape[0]))[rows, columns].tolist()
        with scores.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow((i, j, "score"))
            writer.writerows((ids[0][a], ids[1][b], f"{v:.6g}") for a, b, v in zip(rows, columns, values, strict=True))
    unknown = len(links) - held.nnz
    if as_json:
        print(json.dumps({"relation": name, "links": held.nnz, "unknown": unknown, "rows": len(found.rows), **told}))
        return
    print(f"{held.nnz} held-out links of {len(found.rows)} rows; {unknown} name an object that the fit does not know")
    for metric, values in told.items():
        print(f"{metric} {values['mean']:.4f} [{values['low']:.4f}, {values['high']:.4f}]")


def _named(text: str) -> tuple[str, Path]:
    name, mark, path = text.partition("=")
    if not (name and mark and path):
        raise typer.BadParameter(f"{text!r} is not NAME=FILE")
    return name, Path(path)


def _pair(name: str) -> tuple[str, str]:
    left, mark, right = name.partition("-")
    if not (left and mark and right):
        raise typer.BadParameter(f"{name!r} is not TYPE-TYPE")
    return left, right

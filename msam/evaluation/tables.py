"""From finished runs to figures: results.csv, table1.csv, table1.md."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msam.evaluation.measures import (
    CUTS,
    LIST,
    Floats,
    Judged,
    distinct,
    nothing,
    nothing_of,
    values,
    windows_after,
)
from msam.evaluation.protocols import Slices, targets
from msam.evaluation.runs import Plan, Run
from msam.evaluation.statistics import Estimate, clustered, paired
from msam.listening import Listening

HEADLINE = ("p@20", "r@20", "ndcg@20", "mrr@20", "hr@10", "hr@20")
ERRORS = ("mse", "rmse", "mae", "mape", "msle")
OURS = ("msam", "msam-extended")
SLICES = ("all", "seen", "new", "cold", "few")
_PUBLISHED = ("vlhm", "dlan", "rscn", "mcum", "blcr")


@dataclass(frozen=True, slots=True)
class Result:
    """A system's runs as figures per play: `plays`: metric -> mean over runs [T]; `runs`: (slice, metric) -> one a run.

    `lacks`: why the system could not run on this data; then it has no figures.
    """

    system: str
    plays: Mapping[str, Floats]
    runs: Mapping[tuple[str, str], Sequence[float]]
    lacks: str = ""
    told: Sequence[Mapping[str, Any]] = ()

    def cpu_minutes(self) -> float:
        """What learning and scoring took, all runs together."""
        return float(sum(told["cpu_seconds"] for told in self.told)) / 60


@dataclass(frozen=True, slots=True)
class Comparison:
    """`mine` against the best of the others in one metric, on the same plays."""

    mine: str
    other: str
    metric: str
    by_session: Estimate
    by_user: Estimate


class Report:
    """Everything that tables and figures are drawn from."""

    def __init__(self, plan: Plan, data: Listening, runs: Mapping[str, list[Run]], lacks: Mapping[str, str]) -> None:
        self.plan = plan
        places = targets(data)
        after = windows_after(data, places)
        self.relevant = distinct(after).sum(axis=1)
        self.coming = (after >= 0).sum(axis=1)
        self.slices = Slices(data, plan.protocol)
        self.zero = nothing(after)
        self.best_precision = float((np.minimum(self.relevant, LIST) / LIST).mean())
        self.results = [self._result(name, runs.get(name, []), lacks.get(name, "")) for name in plan.systems]

    def _result(self, name: str, runs: Sequence[Run], lacks: str) -> Result:
        figures: dict[tuple[str, str], list[float]] = {}
        total: dict[str, Floats] = {}
        for run in runs:
            found = values(run.judged, self.relevant)
            found["mae of 0"] = nothing_of(run.judged, self.relevant, self.coming)
            for metric, column in found.items():
                total[metric] = total.get(metric, 0.0) + column / len(runs)
            for name_of, figure in self._sliced(run.judged, found):
                figures.setdefault(name_of, []).append(figure)
        return Result(name, total, figures, lacks, [run.told for run in runs])

    def _sliced(self, judged: Judged, found: Mapping[str, Floats]) -> Iterator[tuple[tuple[str, str], float]]:
        open_ranks = {**found, **values(judged._replace(rank=judged.open_rank), self.relevant)}
        for piece in SLICES:
            mask = self.slices.masks[piece]
            if not mask.any():
                continue
            for metric, column in found.items():
                # Cold tracks are misses by definition under split; whether they are found is asked of the open ranking.
                column = open_ranks[metric] if piece == "cold" else column
                yield (piece, metric), float(column[mask].mean())
                if metric == "mse":
                    yield (piece, "rmse"), float(np.sqrt(column[mask].mean()))

    def of(self, name: str) -> Result | None:
        """A system's result, if it has figures."""
        return next((result for result in self.results if result.system == name and result.runs), None)

    def ran(self) -> list[Result]:
        """The results that have figures."""
        return [result for result in self.results if result.runs]

    def interval(self, result: Result, metric: str) -> Estimate:
        """Mean of a metric over all plays with its 95 % interval over sessions."""
        return clustered(result.plays[metric], self.slices.sessions)

    def comparisons(self) -> list[Comparison]:
        """Each of ours against the best system that is not ours, metric by metric."""
        others = [result for result in self.ran() if not result.system.startswith("msam")]
        found = []
        for mine in (result for name in OURS if (result := self.of(name))):
            for metric in HEADLINE if others else ():
                other = max(others, key=lambda result: float(result.plays[metric].mean()))
                pair = mine.plays[metric], other.plays[metric]
                by_session = paired(*pair, self.slices.sessions)
                found.append(
                    Comparison(mine.system, other.system, metric, by_session, paired(*pair, self.slices.users))
                )
        return found

    def leads(self) -> list[tuple[str, str, dict[str, float]]]:
        """(ours, one of the paper's five, metric -> relative lead; of errors how much lower ours are)."""
        rows = []
        for mine in (result for name in OURS if (result := self.of(name))):
            for other in (result for name in _PUBLISHED if (result := self.of(name))):
                lead = {m: _mean(mine, m) / max(_mean(other, m), 1e-12) - 1 for m in HEADLINE}
                lead |= {m: 1 - _mean(mine, m) / max(_mean(other, m), 1e-12) for m in ERRORS}
                rows.append((mine.system, other.system, lead))
        return rows


def _mean(result: Result, metric: str, piece: str = "all") -> float:
    return float(np.mean(result.runs[piece, metric]))


def spread(result: Result, metric: str, piece: str = "all") -> tuple[float, float]:
    """Mean and sample standard deviation over runs (0 for one run)."""
    runs = result.runs[piece, metric]
    return float(np.mean(runs)), float(np.std(runs, ddof=1)) if len(runs) > 1 else 0.0


def write_results(report: Report, path: Path) -> None:
    """results.csv: one row a figure."""
    rows = (
        (report.plan.protocol, report.plan.level, result.system, run, piece, metric, f"{figure:.6f}")
        for result in report.ran()
        for (piece, metric), figures in result.runs.items()
        for run, figure in enumerate(figures)
    )
    _write(path, ("protocol", "level", "system", "run", "slice", "metric", "value"), rows)


def write_table(report: Report, path: Path) -> None:
    """table1.csv: one row a system; mean, standard deviation over runs, 95 % interval over sessions."""
    parts = ("mean", "std", "low", "high")
    header = ["protocol", "level", "system", "runs", *(f"{metric}_{part}" for metric in HEADLINE for part in parts)]

    def row(result: Result) -> list[object]:
        start = [report.plan.protocol, report.plan.level, result.system]
        if not result.runs:
            return [*start, 0, *["n/a"] * (len(header) - 4)]
        cells: list[object] = [*start, len(result.runs["all", "hr@20"])]
        for metric in HEADLINE:
            estimate = report.interval(result, metric)
            cells += [f"{x:.6f}" for x in (*spread(result, metric), estimate.low, estimate.high)]
        return cells

    _write(path, header, map(row, report.results))


def _write(path: Path, header: Sequence[str], rows: Iterator[Sequence[object]] | map[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def title(report: Report) -> str:
    """What every table and figure says about where it comes from."""
    plan = report.plan
    age = f", everyone's counts up to {plan.age} plays old" if plan.age > 1 else ""
    scored = f"{len(report.relevant)} plays scored, up to {plan.runs} runs"
    return f"protocol {plan.protocol}{age}, level {plan.level}, {scored}"


def table_rows(report: Report) -> list[list[str]]:
    """Table 1 as text: header, then a row a system: mean ± standard deviation over runs."""
    rows = [["system", "runs", *(metric.upper() for metric in HEADLINE)]]
    for result in report.results:
        if not result.runs:
            rows.append([result.system, "0", f"n/a ({result.lacks or 'not run'})", *[""] * (len(HEADLINE) - 1)])
            continue
        cells = []
        for metric in HEADLINE:
            mean, std = spread(result, metric)
            cells.append(f"{mean:.4f}" + (f" ± {std:.4f}" if len(result.runs["all", metric]) > 1 else ""))
        rows.append([result.system, str(len(result.runs["all", "hr@20"])), *cells])
    return rows


def interval_rows(report: Report) -> list[list[str]]:
    """95 % intervals as text."""
    rows = [["system", *(metric.upper() for metric in HEADLINE)]]
    for result in report.ran():
        estimates = [report.interval(result, metric) for metric in HEADLINE]
        rows.append([result.system, *(f"[{e.low:.4f}, {e.high:.4f}]" for e in estimates)])
    return rows


def error_rows(report: Report) -> list[list[str]]:
    """The five errors as text, beside the MAE of predicting 0 over the same items; last 0 with a list of misses."""
    rows = [["system", *(metric.upper() for metric in ERRORS), "MAE of 0 there"]]
    rows += [[r.system, *(f"{_mean(r, metric):.5f}" for metric in (*ERRORS, "mae of 0"))] for r in report.ran()]
    return [*rows, ["(0 everywhere)", *(f"{report.zero[metric]:.5f}" for metric in ERRORS), ""]]


def slice_rows(report: Report) -> list[list[str]]:
    """HR@20 and MRR@20 of every slice as text."""
    there = [piece for piece in SLICES if report.slices.masks[piece].any()]
    counts = [f"{piece} ({int(report.slices.masks[piece].sum())})" for piece in there]
    rows = [["system", *(f"{count} {metric}" for count in counts for metric in ("HR@20", "MRR@20"))]]
    for result in report.ran():
        cells = [f"{_mean(result, metric, piece):.4f}" for piece in there for metric in ("hr@20", "mrr@20")]
        rows.append([result.system, *cells])
    return rows


def comparison_rows(report: Report) -> list[list[str]]:
    """Paired tests as text."""
    rows = [["ours", "best other", "metric", "difference", "95 % by session", "p by session", "p by user"]]
    for c in report.comparisons():
        low, high = c.by_session.low, c.by_session.high
        values_of = [f"{c.by_session.mean:+.4f}", f"[{low:+.4f}, {high:+.4f}]"]
        rows.append([c.mine, c.other, c.metric.upper(), *values_of, f"{c.by_session.p:.2g}", f"{c.by_user.p:.2g}"])
    return rows


def lead_rows(report: Report) -> list[list[str]]:
    """Relative leads as text: above 0 is better, errors included."""
    rows = [["ours", "against", *(metric.upper() for metric in (*HEADLINE, *ERRORS))]]
    for mine, other, lead in report.leads():
        rows.append([mine, other, *(f"{lead[metric]:+.1%}" for metric in (*HEADLINE, *ERRORS))])
    return rows


def cost_rows(report: Report) -> list[list[str]]:
    """CPU time of one thread as text: learning and scoring, without what is prepared once for all."""
    rows = [["system", "runs", "seconds a run", "all runs [minutes]"]]
    for result in report.ran():
        runs, minutes = len(result.told), result.cpu_minutes()
        rows.append([result.system, str(runs), f"{60 * minutes / runs:.1f}", f"{minutes:.1f}"])
    return [*rows, ["(together)", "", "", f"{sum(result.cpu_minutes() for result in report.ran()):.1f}"]]


def f1_rows(report: Report) -> list[list[str]]:
    """F1@N as text."""
    rows = [["system", *(f"F1@{n}" for n in CUTS)]]
    rows += [[r.system, *(f"{_mean(r, f'f1@{n}'):.4f}" for n in CUTS)] for r in report.ran()]
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, the first a header, as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines) + "\n"


def write_markdown(report: Report, path: Path) -> None:
    """table1.md: Table 1, errors and the paired test."""
    parts = [
        f"# Table 1\n\n{title(report)}; mean ± standard deviation over runs. "
        f"Best reachable P@20: {report.best_precision:.4f}.\n",
        markdown(table_rows(report)),
        "95 % intervals over sessions:\n",
        markdown(interval_rows(report)),
        "Errors of the predicted preference score:\n",
        markdown(error_rows(report)),
        "Ours against the best other, on the same plays (paired; p by session and by user):\n",
        markdown(comparison_rows(report)),
    ]
    path.write_text("\n".join(parts), encoding="utf-8")

"""Figure 4 (F1@N), Figure 5 (five errors) and learning curves as PNG."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from msam.evaluation.measures import CUTS
from msam.evaluation.tables import ERRORS, Report, spread, title

_MARKERS = "osD^v<>phXP*d"
_COLOURS = [colormaps["tab20"](place % 20) for place in (*range(0, 20, 2), *range(1, 20, 2))]  # dark ones first


def figure4(report: Report) -> bytes:
    """F1@N for N = 2, 4, ..., 20: mean over runs, bars of one standard deviation."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=_COLOURS)
    for place, result in enumerate(report.ran()):
        means, stds = zip(*(spread(result, f"f1@{n}") for n in CUTS), strict=True)
        marker = _MARKERS[place % len(_MARKERS)]
        axes.errorbar(CUTS, means, stds, marker=marker, markersize=4, linewidth=1.2, label=result.system)
    axes.set(xlabel="N", ylabel="F1@N", xticks=CUTS, title=f"F1@N ({title(report)})")
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    return _png(figure)


def figure5(report: Report) -> bytes:
    """MSE, RMSE, MAE, MAPE, MSLE of the predicted preference score: mean over runs, bars of one standard deviation."""
    figure = Figure(figsize=(14, 0.28 * len(report.ran()) + 2), layout="constrained")
    names = [result.system for result in report.ran()]
    for axes, metric in zip(figure.subplots(1, len(ERRORS), sharey=True), ERRORS, strict=True):
        pairs = [spread(result, metric) for result in report.ran()]
        axes.barh(np.arange(len(names)), [mean for mean, _ in pairs], xerr=[std for _, std in pairs], color="tab:blue")
        axes.set_title(metric.upper(), fontsize=10)
        axes.set_yticks(np.arange(len(names)), names, fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", alpha=0.3)
    if names:
        axes.invert_yaxis()
    figure.suptitle(f"Errors of the predicted preference score ({title(report)})", fontsize=10)
    return _png(figure)


def curves(report: Report) -> bytes:
    """Loss and holdout NDCG@20 by epoch of the first run of every system that has epochs."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for result in report.ran():
        for axes, key in ((left, "losses"), (right, "figures")):
            series = result.told[0].get(key)
            if isinstance(series, list) and series:
                axes.plot(range(1, len(series) + 1), series, marker="o", markersize=3, label=result.system)
    left.set(xlabel="epoch", ylabel="training loss")
    right.set(xlabel="epoch", ylabel="holdout NDCG@20")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
    return out.getvalue()

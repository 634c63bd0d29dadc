"""Everything written into `--out`: tables, figures and one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from msam.baselines import ABLATIONS
from msam.evaluation import figures, tables
from msam.evaluation.tables import HEADLINE, Report, spread
from msam.features.audio import AUDIO_GROUPS

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0;font-size:13px}td,th{border:1px solid #ccc;padding:.2rem .5rem;"
    "text-align:right}td:first-child,th:first-child{text-align:left}th{background:#f3f3f3}img{max-width:100%}"
    ".scroll{overflow-x:auto}"
)


def write_all(report: Report, out: Path) -> None:
    """results.csv, table1.csv, table1.md, figure4.png, figure5.png, report.html."""
    out.mkdir(parents=True, exist_ok=True)
    tables.write_results(report, out / "results.csv")
    tables.write_table(report, out / "table1.csv")
    tables.write_markdown(report, out / "table1.md")
    four, five = figures.figure4(report), figures.figure5(report)
    (out / "figure4.png").write_bytes(four)
    (out / "figure5.png").write_bytes(five)
    (out / "report.html").write_text(page(report, four, five), encoding="utf-8")


def page(report: Report, four: bytes, five: bytes) -> str:
    """The report as HTML with its figures inside."""
    note = (
        f"Mean ± standard deviation over runs; a system that no seed changes is run once. Best reachable P@20: "
        f"{report.best_precision:.4f}."
    )
    if report.plan.protocol == "split":
        note += (
            " Trained on the first 80 % of each user's plays; histories grow with the test plays. A target unseen in "
            "training is a miss; the slice “cold” alone is ranked among unseen items too."
        )
    else:
        note += " Every play is scored, then learned by the systems whose counts can; networks stay as trained."
    parts = [
        ("Table 1", f"<p>{escape(note)}</p>" + _table(tables.table_rows(report))),
        ("95 % intervals over sessions", _table(tables.interval_rows(report))),
        ("Against the best other, paired on the same plays", _table(tables.comparison_rows(report))),
        ("Relative lead over the paper's five (above 0: ours is better)", _table(tables.lead_rows(report))),
        ("Figure 4", _image(four, "F1@N") + _table(tables.f1_rows(report))),
        ("Figure 5", _image(five, "errors") + _table(tables.error_rows(report))),
        ("Slices (number of plays)", _table(tables.slice_rows(report))),
        ("Ablation: the published model and one extension", _table(ablation_rows(report))),
        ("Learning curves of the first run", _image(figures.curves(report), "learning curves")),
        ("Mean attention weights of the first run", _table(attention_rows(report))),
        ("What it cost: seconds of CPU, learning and scoring together", _table(tables.cost_rows(report))),
    ]
    body = "".join(f"<h2>{escape(heading)}</h2>{content}" for heading, content in parts if content)
    heading = "MSAM evaluation"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title><style>{_STYLE}</style>'
        f"<h1>{heading}</h1><p>{escape(tables.title(report))}</p>{body}</html>\n"
    )


def ablation_rows(report: Report) -> list[list[str]]:
    """What each extension changes against the published model; only a header where no ablation was run."""
    rows = [["system", *(metric.upper() for metric in HEADLINE)]]
    base = report.of("msam")
    for name in ABLATIONS if base else ():
        result = report.of(name)
        if result is not None and base is not None:
            gains = [spread(result, metric)[0] - spread(base, metric)[0] for metric in HEADLINE]
            rows.append([name, *(f"{gain:+.4f}" for gain in gains)])
    return rows


def attention_rows(report: Report) -> list[list[str]]:
    """Mean weights of the modalities and of the audio groups on plays of the training part."""
    rows = [["system", "sound", "words", "order", *AUDIO_GROUPS]]
    for result in report.ran():
        weights = result.told[0].get("attention")
        if isinstance(weights, dict):
            rows.append([result.system, *(f"{w:.3f}" for w in (*weights["modality"], *weights["audio"]))])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> str:
    if len(rows) < 2:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'

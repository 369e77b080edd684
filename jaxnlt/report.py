"""report.html: what a run reached and which labels it distrusts."""

import base64
import html
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnlt import metrics, report_figures

TEST_KINDS = {
    "test": "Accuracies are on the test set.",
    "dev": "Accuracies are on the development set, not on the test set.",
    "held_out": "There is no test set: accuracies are on held-out samples "
    "with given, possibly wrong, labels.",
}
SHOWN, MOST_CLASSES = 8, 30  # suspicious images a class, classes
TILES = (
    ("mean_last10_test_accuracy", "mean of last 10 epochs"),
    ("best_test_accuracy", "best epoch"),
    ("last_test_accuracy", "last epoch"),
    ("accuracy_many", "many-shot classes"),
    ("accuracy_medium", "medium-shot classes"),
    ("accuracy_few", "few-shot classes"),
)
STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1f2933; line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "Liberation Sans", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 28px 80px; }
h1 { font-size: 30px; letter-spacing: -.02em; margin: 0 0 4px; }
h2 { font-size: 19px; letter-spacing: -.01em; margin: 44px 0 2px; }
p { margin: 0 0 12px; }
.caption { color: #52606d; font-size: 14.5px; max-width: 110ch; }
.tiles { display: grid; gap: 12px; margin: 22px 0 26px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.tile { border: 1px solid #e4e7eb; border-radius: 8px; padding: 12px 15px; }
.tile:first-child { background: #1f2933; color: #fff; border-color: #1f2933; }
.tile b { display: block; font-size: 25px; line-height: 1.25;
  white-space: nowrap; font-weight: 650; letter-spacing: -.02em; }
.tile span { font-size: 13px; opacity: .8; }
.facts { columns: 2; column-gap: 44px; margin: 0; font-size: 14.5px; }
.facts div { display: flex; justify-content: space-between; gap: 20px;
  break-inside: avoid;
  border-bottom: 1px solid #edf0f3; padding: 5px 0; }
.facts dt { color: #52606d; }
.facts dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f5f7fa; border-radius: 8px; padding: 11px 15px; margin: 0;
  font: 13px/1.5 ui-monospace, Menlo, Consolas, "Liberation Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
pre.command { margin-top: 18px; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 32px; }
.small { max-width: 420px; margin: 0 auto; }
.narrow { max-width: 640px; margin: 0 auto; }
.wide { max-width: 820px; margin: 0 auto; }
.suspects { display: grid; grid-template-columns: 132px 1fr; gap: 10px 18px;
  align-items: start; margin-top: 14px; }
.suspects h3 { margin: 0; font-size: 15px; overflow-wrap: anywhere; }
.suspects h3 small { display: block; font-weight: 400; color: #616e7c; }
.row { display: flex; flex-wrap: wrap; gap: 12px; padding-bottom: 14px;
  border-bottom: 1px solid #edf0f3; }
.row figure { width: 94px; }
.row img { width: 94px; height: 94px; object-fit: contain;
  image-rendering: pixelated; background: #f5f7fa; border-radius: 4px; }
.row figcaption { font-size: 12.5px; line-height: 1.35; margin-top: 4px;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.row small { color: #616e7c; font-size: 12px; display: block; }
.row .wrong { color: #b45309; } .row .right { color: #15803d; }
table { border-collapse: collapse; font-size: 14.5px; margin: 10px auto; }
td, th { padding: 4px 16px 4px 0; border-bottom: 1px solid #edf0f3;
  text-align: left; } td:last-child { text-align: right; }
details { margin-top: 44px; } summary { cursor: pointer; margin-bottom: 8px; }
@media (max-width: 760px) { .facts { columns: 1; }
  .pair, .suspects { grid-template-columns: 1fr; } }
"""


def _name(text: str) -> str:
    """A class name that may break after its underscores."""
    return html.escape(text).replace("_", "_<wbr>")


def _section(title: str, caption: str, body: str) -> str:
    return (
        f"<h2>{html.escape(title)}</h2>\n"
        f'<p class="caption">{html.escape(caption)}</p>\n{body}\n'
    )


def _picture(svg: str, alt: str, kind: str = "") -> str:
    # As images, so that the identifiers inside two figures cannot clash.
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<figure class="{kind}"><img alt="{html.escape(alt)}" '
        f'src="data:image/svg+xml;base64,{data}"></figure>'
    )


def _headline(summary: dict[str, Any], test_kind: str) -> str:
    tiles = "".join(
        f'<div class="tile"><b>{100 * summary[key]:.2f}&nbsp;%</b>'
        f"<span>{name}</span></div>"
        for key, name in TILES
        if summary.get(key) is not None
    )
    shown = {key for key, _ in TILES} | {"method", "benchmark", "command"}
    facts = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in metrics.headline(
            {key: v for key, v in summary.items() if key not in shown}
        )
    )
    command = summary.get("command")
    return (
        f"<h1>{html.escape(str(summary['method']))} on "
        f"{html.escape(str(summary['benchmark']))}</h1>\n"
        f'<p class="caption">{TEST_KINDS[test_kind]}</p>\n'
        f'<div class="tiles">{tiles}</div>\n<dl class="facts">{facts}</dl>\n'
        + (
            f'<pre class="command">{html.escape(command)}</pre>\n'
            if command
            else ""
        )
    )


def _curves(records: Sequence[dict[str, Any]]) -> list[str]:
    parts = []
    if any(r.get("test_accuracy") is not None for r in records):
        parts.append(
            _section(
                "Accuracy per epoch",
                "Test accuracy; every second phase is shaded. The best is a "
                "maximum over the test set: compare means of the last ten.",
                _picture(report_figures.accuracy(records), "accuracy curve"),
            )
        )
    keys = [
        key
        for key in dict.fromkeys(key for r in records for key in r)
        if "loss" in key and any(r.get(key) is not None for r in records)
    ]
    if keys:
        parts.append(
            _section(
                "Training losses",
                "Means over each epoch, one panel a term with its own scale; "
                "phases are shaded as above.",
                _picture(report_figures.losses(records, keys), "loss curves"),
            )
        )
    if any(r.get("selection_auc") is not None for r in records):
        parts.append(
            _section(
                "Quality of the selection",
                "How well trusted and distrusted samples agree with the true "
                "labels; training never sees those.",
                _picture(
                    report_figures.selection_quality(records),
                    "selection quality curves",
                ),
            )
        )
    return parts


def _distributions(
    records: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    given: np.ndarray,
    true: np.ndarray | None,
    clean_probability: np.ndarray | None,
) -> str:
    parts = []
    if clean_probability is not None:
        caption = (
            "How far the run trusts each given label, by whether it is right."
            if true is not None
            else "How far the run trusts each given label."
        )
        svg = report_figures.clean_histogram(clean_probability, given, true)
        parts.append(
            _section(
                "Clean probability",
                caption,
                _picture(svg, "histogram of clean probability"),
            )
        )
    per_class = records[-1].get("accuracy_per_class") if records else None
    if per_class is not None:
        svg = report_figures.class_bars(per_class, given, true, class_names)
        parts.append(
            _section(
                "Accuracy of every class",
                "Last epoch, above the class's training samples, "
                "largest class first.",
                _picture(svg, "accuracy and training samples by class"),
            )
        )
    pair = "".join(f"<div>{part}</div>" for part in parts)
    return f'<div class="pair">{pair}</div>' if parts else ""


def _percent(of: np.ndarray) -> str:
    return f"{100 * of.mean():.1f}\N{NO-BREAK SPACE}%"


def _changes(
    given: np.ndarray,
    suggested: np.ndarray,
    true: np.ndarray | None,
    class_names: Sequence[str],
) -> str:
    changed = given != suggested
    caption = (
        f"Rows are given labels, columns suggested ones; the run would change "
        f"{changed.sum():,} of {len(given):,} labels "
        f"({_percent(changed)})."
    )
    if true is not None:
        caption += (
            f" Right labels: {_percent(given == true)} of the given, "
            f"{_percent(suggested == true)} of the suggested ones."
        )
    svg = report_figures.label_matrix(given, suggested, class_names)
    n = len(class_names)
    kind = "small" if n <= 4 else "narrow" if n <= 12 else "wide"
    body = _picture(svg, "given against suggested labels", kind)
    if n > 12 and changed.any():
        pairs, counts = np.unique(
            np.stack([given[changed], suggested[changed]]),
            axis=1,
            return_counts=True,
        )
        rows = "".join(
            f"<tr><td>{html.escape(class_names[pairs[0, i]])}</td>"
            f"<td>{html.escape(class_names[pairs[1, i]])}</td>"
            f"<td>{counts[i]:,}</td></tr>"
            for i in np.argsort(-counts, kind="stable")[:10]
        )
        body += (
            "<table><tr><th>given</th><th>suggested most often</th>"
            f"<th>labels</th></tr>{rows}</table>"
        )
    return _section("Given against suggested labels", caption, body)


def _thumbnail(image: np.ndarray) -> str:
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((188, 188))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _suspects(
    images: np.ndarray,
    ids: np.ndarray,
    class_names: Sequence[str],
    given: np.ndarray,
    true: np.ndarray | None,
    clean_probability: np.ndarray,
    suggested: np.ndarray,
) -> str:
    n = len(class_names)
    classes = [c for c in range(n) if (given == c).any()]
    caption = (
        f"The {SHOWN} least trusted samples of every class: "
        "given → suggested label, clean probability"
    )
    if true is not None:
        caption += ", truth"
    if len(classes) > MOST_CLASSES:
        means = {c: clean_probability[given == c].mean() for c in classes}
        classes = sorted(sorted(classes, key=means.__getitem__)[:MOST_CLASSES])
        caption += (
            f". Of {n} classes the {MOST_CLASSES} least trusted are shown"
        )
    rows = []
    for c in classes:
        members = np.flatnonzero(given == c)
        order = np.argsort(clean_probability[members], kind="stable")
        cells = []
        for i in members[order[:SHOWN]]:
            truth = ""
            if true is not None:
                kind, text = (
                    ("right", "label is right")
                    if true[i] == given[i]
                    else ("wrong", f"truly {class_names[true[i]]}")
                )
                truth = f'<small class="{kind}">{_name(text)}</small>'
            cells.append(
                f'<figure title="{html.escape(str(ids[i]))}"><img alt="" '
                f'src="data:image/png;base64,{_thumbnail(images[i])}">'
                f"<figcaption>{_name(class_names[c])} → "
                f"{_name(class_names[suggested[i]])}"
                f"<small>{clean_probability[i]:.3f}</small>{truth}"
                "</figcaption></figure>"
            )
        rows.append(
            f"<h3>{_name(class_names[c])}"
            f"<small>{len(members):,} given</small></h3>"
            f'<div class="row">{"".join(cells)}</div>'
        )
    return _section(
        "Most suspicious labels",
        caption + ". Hover for the sample's name; all are in labels.csv.",
        f'<div class="suspects">{"".join(rows)}</div>',
    )


def write_report(
    path: str | pathlib.Path,
    *,
    records: Sequence[dict[str, Any]],
    summary: dict[str, Any],
    config: dict[str, Any],
    class_names: Sequence[str],
    images: np.ndarray,
    ids: np.ndarray,
    given: np.ndarray,
    true: np.ndarray | None = None,
    clean_probability: np.ndarray | None = None,
    suggested: np.ndarray | None = None,
    test_kind: str = "test",
) -> None:
    """Writes one self-contained HTML file (no network, no scripts).

    Args:
      path: the file, replaced at once or not at all.
      records: the objects of metrics.jsonl; every key with ``loss`` in its
        name is drawn as a training loss.
      summary: as in summary.json, with ``method`` and ``benchmark``; see
        ``metrics.HEADLINE`` for what is shown.
      config: the resolved config, JSON-able.
      class_names: C names.
      images: uint8 [N, H, W, 1 or 3] training images; only those shown are
        read.
      ids: [N] index or path of every training sample.
      given: int [N] given labels.
      true: int [N] true labels where known.
      clean_probability: float [N] in [0, 1]; None for a method that selects
        nothing.
      suggested: int [N] suggested labels; None likewise.
      test_kind: 'test', 'dev' or 'held_out', as in Dataset.
    """
    parts = [_headline(summary, test_kind), *_curves(records)]
    parts.append(
        _distributions(records, class_names, given, true, clean_probability)
    )
    if suggested is not None:
        parts.append(_changes(given, suggested, true, class_names))
    if suggested is not None and clean_probability is not None:
        parts.append(
            _suspects(
                images,
                ids,
                class_names,
                given,
                true,
                clean_probability,
                suggested,
            )
        )
    text = json.dumps(config, indent=2, default=str)
    parts.append(
        "<details><summary>Resolved configuration</summary>"
        f"<pre>{html.escape(text)}</pre></details>"
    )
    title = html.escape(f"{summary['method']} on {summary['benchmark']}")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><main>\n{''.join(parts)}</main></body></html>\n"
    )
    path = pathlib.Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(page, "utf-8")
    os.replace(temporary, path)

"""report.html: the figures of a run, and the labels that it distrusts."""

import base64
import html
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnlt.auditing.verdict import Audit
from jaxnlt.data.records import (
    UNKNOWN,
    VALIDATION,
    WRONG,
    Dataset,
    classes_known,
)
from jaxnlt.results import figures, labels
from jaxnlt.results import summary as summary_lib
from jaxnlt.results.files import Record
from jaxnlt.results.style import STYLE
from jaxnlt.runtime import console
from jaxnlt.runtime.files import atomic

TEST_KINDS = {
    "test": "Accuracies are on the test set.",
    "dev": "Accuracies are on the development set, not on the test set.",
    "held_out": "There is no test set: accuracies are on held-out samples "
    "with given, possibly wrong, labels.",
}
#: How many suspicious images of a class are shown, and of how many classes.
SHOWN, MOST_CLASSES = 8, 30
TILES = (
    ("mean_last10_test_accuracy", "mean of last 10 epochs"),
    ("best_test_accuracy", "best epoch"),
    ("last_test_accuracy", "last epoch"),
    ("accuracy_many", "many-shot classes"),
    ("accuracy_medium", "medium-shot classes"),
    ("accuracy_few", "few-shot classes"),
)


def _escaped(text: str) -> str:
    """A text as HTML shows it; control characters have no place there."""
    return html.escape("\n".join(map(console.printable, text.split("\n"))))


def _name(text: str) -> str:
    """A class name that may break after its underscores."""
    return _escaped(text).replace("_", "_<wbr>")


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _section(title: str, caption: str, body: str) -> str:
    return (
        f"<h2>{_escaped(title)}</h2>\n"
        f'<p class="caption">{_escaped(caption)}</p>\n{body}\n'
    )


def _picture(svg: str, alt: str, kind: str = "") -> str:
    # As images, so that the identifiers inside two figures cannot clash.
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<figure class="{kind}"><img alt="{_escaped(alt)}" '
        f'src="data:image/svg+xml;base64,{data}"></figure>'
    )


def _headline(summary: Record, test_kind: str) -> str:
    tiles = "".join(
        f'<div class="tile"><b>{100 * summary[key]:.2f}&nbsp;%</b>'
        f"<span>{name}</span></div>"
        for key, name in TILES
        if summary.get(key) is not None
    )
    shown = {key for key, _ in TILES} | {"method", "benchmark", "command"}
    rows = "".join(
        f"<div><dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd></div>"
        for name, value in summary_lib.headline(
            {key: v for key, v in summary.items() if key not in shown}
        )
    )
    command = summary.get("command")
    return (
        f"<h1>{_escaped(str(summary['method']))} on "
        f"{_escaped(str(summary['benchmark']))}</h1>\n"
        f'<p class="caption">{TEST_KINDS[test_kind]}</p>\n'
        f'<div class="tiles">{tiles}</div>\n<dl class="list">{rows}</dl>\n'
        + (
            f'<pre class="command">{_escaped(command)}</pre>\n'
            if command
            else ""
        )
    )


def _curves(records: Sequence[Record], more_tests: Sequence[str]) -> list[str]:
    """Sections of figures over the epochs."""
    parts = []
    if any(r.get("test_accuracy") is not None for r in records):
        caption = (
            "Test accuracy; every second phase is shaded. The best is a "
            "maximum over the test set: compare means of the last ten."
        )
        if more_tests:
            caption += f" Dashed: the same networks on {_and(more_tests)}."
        if VALIDATION in more_tests:
            caption += " The checkpoint kept as best is that of validation."
        svg = figures.accuracy(records, more_tests)
        parts.append(
            _section(
                "Accuracy per epoch", caption, _picture(svg, "accuracy curve")
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
                _picture(figures.losses(records, keys), "loss curves"),
            )
        )
    if any(r.get("selection_auc") is not None for r in records):
        parts.append(
            _section(
                "Quality of the selection",
                "How well trusted and distrusted samples agree with the true "
                "labels; training never sees those.",
                _picture(
                    figures.selection_quality(records),
                    "selection quality curves",
                ),
            )
        )
    return parts


def _distributions(
    dataset: Dataset, records: Sequence[Record], audit: Audit
) -> str:
    """Clean probabilities, and accuracies of the classes, side by side."""
    given, true = dataset.train.labels, labels.known_truth(dataset.train)
    caption = (
        "How far the run trusts each given label, by whether it is right."
        if true is not None
        else "How far the run trusts each given label."
    )
    svg = figures.clean_histogram(audit.clean_probability, given, true)
    parts = [
        _section(
            "Clean probability",
            caption,
            _picture(svg, "histogram of clean probability"),
        )
    ]
    per_class = records[-1].get("accuracy_per_class") if records else None
    if per_class is not None:
        if not classes_known(true):
            true = None
        svg = figures.class_bars(per_class, given, true, dataset.class_names)
        parts.append(
            _section(
                "Accuracy of every class",
                "Last epoch, above the class's training samples, "
                "largest class first.",
                _picture(svg, "accuracy and training samples by class"),
            )
        )
    pair = "".join(f"<div>{part}</div>" for part in parts)
    return f'<div class="pair">{pair}</div>'


def _percent(of: np.ndarray) -> str:
    """The share of True, as text."""
    return f"{100 * of.mean():.1f}\N{NO-BREAK SPACE}%"


def _changes(dataset: Dataset, suggested: np.ndarray) -> str:
    """Given against suggested labels, int [N]."""
    given, true = dataset.train.labels, labels.known_truth(dataset.train)
    class_names = dataset.class_names
    changed = given != suggested
    caption = (
        f"Rows are given labels, columns suggested ones; the run would change "
        f"{changed.sum():,} of {len(given):,} labels "
        f"({_percent(changed)})."
    )
    if true is not None:
        verified = true != UNKNOWN
        right = _percent((given == true)[verified])
        if not verified.all():
            caption += f" Of the {verified.sum():,} that were verified,"
            caption += f" {right} are right."
        elif classes_known(true):
            caption += f" Right labels: {right} of the given, "
            caption += f"{_percent(suggested == true)} of the suggested ones."
        else:
            caption += f" Right labels: {right} of the given."
    svg = figures.label_matrix(given, suggested, class_names)
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
            f"<tr><td>{_escaped(class_names[pairs[0, i]])}</td>"
            f"<td>{_escaped(class_names[pairs[1, i]])}</td>"
            f"<td>{counts[i]:,}</td></tr>"
            for i in np.argsort(-counts, kind="stable")[:10]
        )
        body += (
            "<table><tr><th>given</th><th>suggested most often</th>"
            f"<th>labels</th></tr>{rows}</table>"
        )
    return _section("Given against suggested labels", caption, body)


def _thumbnail(image: np.ndarray) -> str:
    """A small PNG of uint8 [H, W, 1 or 3], in base 64."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((188, 188))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _suspects(dataset: Dataset, audit: Audit) -> str:
    """The least trusted samples of every class."""
    given, true = dataset.train.labels, labels.known_truth(dataset.train)
    clean, class_names = audit.clean_probability, dataset.class_names
    quality = audit.label_quality
    n = len(class_names)
    classes = [c for c in range(n) if (given == c).any()]
    caption = (
        f"The {SHOWN} least trusted samples of every class: "
        "given → suggested label, clean probability"
    )
    if true is not None:
        caption += ", truth"
    if len(classes) > MOST_CLASSES:
        means = {c: clean[given == c].mean() for c in classes}
        classes = sorted(sorted(classes, key=means.__getitem__)[:MOST_CLASSES])
        caption += (
            f". Of {n} classes the {MOST_CLASSES} least trusted are shown"
        )
    rows = []
    for c in classes:
        members = np.flatnonzero(given == c)
        order = np.argsort(quality[members])
        cells = []
        for i in members[order[:SHOWN]]:
            truth = (
                "" if true is None else _truth(given[i], true[i], class_names)
            )
            cells.append(
                f'<figure title="{_escaped(str(dataset.train.ids[i]))}">'
                f'<img alt="" src="data:image/png;base64,'
                f'{_thumbnail(dataset.train.images[i])}">'
                f"<figcaption>{_name(class_names[c])} → "
                f"{_name(class_names[audit.suggested[i]])}"
                f"<small>{clean[i]:.3f}</small>{truth}"
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


def _truth(given: int, true: int, class_names: Sequence[str]) -> str:
    """What is known of one label."""
    if true == UNKNOWN:
        return ""
    kind, text = "wrong", "label is wrong"
    if true == given:
        kind, text = "right", "label is right"
    elif true != WRONG:
        text = f"truly {class_names[true]}"
    return f'<small class="{kind}">{_name(text)}</small>'


def write_report(
    path: str | pathlib.Path,
    dataset: Dataset,
    config: dict[str, Any],
    records: Sequence[Record],
    summary: Record,
    audit: Audit,
) -> None:
    """Writes one self-contained HTML file (no network, no scripts).

    Args:
      path: the file, replaced at once or not at all.
      dataset: the data of the run; only the images that are shown are read.
      config: the resolved config, JSON-able.
      records: the objects of metrics.jsonl; every key with ``loss`` in its
        name is drawn as a training loss.
      summary: as in summary.json, with ``method`` and ``benchmark``; see
        ``summary.HEADLINE`` for what is shown.
      audit: of the training labels.
    """
    more_tests = tuple(dataset.more_tests)
    parts = [
        _headline(summary, dataset.test_kind),
        *_curves(records, more_tests),
        _distributions(dataset, records, audit),
        _changes(dataset, audit.suggested),
    ]
    if not dataset.train.has_features:
        parts.append(_suspects(dataset, audit))
    text = json.dumps(config, indent=2, default=str)
    parts.append(
        "<details><summary>Resolved configuration</summary>"
        f"<pre>{_escaped(text)}</pre></details>"
    )
    title = _escaped(f"{summary['method']} on {summary['benchmark']}")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><main>\n{''.join(parts)}</main></body></html>\n"
    )
    with atomic(pathlib.Path(path)) as file:
        file.write(page)

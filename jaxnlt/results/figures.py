"""The figures of the report, each a self-contained SVG text."""

import io
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnlt.data.records import UNKNOWN
from jaxnlt.results.files import Record
from jaxnlt.runtime import console

if TYPE_CHECKING:  # loaded where a figure is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, RULE = "#1f2933", "#616e7c", "#d9dee4"
BLUE, ORANGE, GREEN, PURPLE = "#2563eb", "#e8710a", "#15803d", "#7c3aed"
BAND = "#f3f5f8"
Records = Sequence[Record]


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1
) -> tuple["Figure", np.ndarray]:
    """A figure (inches) and its [rows, columns] axes, quietly styled."""
    # The object interface only: pyplot would keep global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(RULE)
        ax.tick_params(colors=SOFT, labelsize=9, length=3)
        ax.grid(axis="y", color=RULE, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.xaxis.label.set(color=SOFT, fontsize=9.5)
        ax.yaxis.label.set(color=SOFT, fontsize=9.5)
    return figure, axes


def _svg(figure: "Figure") -> str:
    from matplotlib import rc_context
    from matplotlib.text import Text

    file = io.StringIO()
    # Dollars in a name are no formula: neither in texts that are there nor in
    # those that are made while the figure is drawn.
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with rc_context({"text.parse_math": False}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _whole(ax: "Axes", axis: str = "x") -> None:
    """Puts ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    chosen = ax.xaxis if axis == "x" else ax.yaxis
    chosen.set_major_locator(MaxNLocator(integer=True, nbins=8))


def _series(records: Records, key: str) -> np.ndarray:
    """A figure of every epoch, NaN where there is none."""
    values = [record.get(key) for record in records]
    return np.array([math.nan if v is None else v for v in values], float)


def _epochs(records: Records) -> np.ndarray:
    """The epochs, counted from 1."""
    return _series(records, "epoch") + 1


def _phases(ax: "Axes", records: Records, names: bool) -> None:
    """Shades every second phase; writes its name above the axes."""
    epochs = _epochs(records)
    phases = [record.get("phase", "") for record in records]
    starts = [i for i in range(len(phases)) if phases[i - 1 : i] != [phases[i]]]
    for number, (start, end) in enumerate(
        zip(starts, [*starts[1:], len(phases)], strict=True)
    ):
        left, right = epochs[start] - 0.5, epochs[end - 1] + 0.5
        if number % 2:
            ax.axvspan(left, right, color=BAND, zorder=0, linewidth=0)
        # Names of very short phases would overlap their neighbours'.
        if names and end - start >= 0.08 * len(phases):
            ax.text(
                (left + right) / 2,
                1.02,
                phases[start].replace("_", " "),
                transform=ax.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=9,
                color=SOFT,
            )
    ax.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    _whole(ax)


def _legend(ax: "Axes", **where: Any) -> None:
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, **where)


def _lines(
    ax: "Axes",
    records: Records,
    keys: Sequence[tuple[str, str, str]],
    linestyle: Any = "-",
) -> None:
    """Draws figures over the epochs, each a key, a name and a colour."""
    epochs = _epochs(records)
    for key, name, color in keys:
        values = _series(records, key)
        if np.isfinite(values).any():
            marker = "o" if len(records) < 3 else None
            ax.plot(
                epochs,
                values,
                color=color,
                label=name,
                linewidth=1.4,
                linestyle=linestyle,
                marker=marker,
                markersize=4,
            )


def accuracy(records: Records, more_tests: Sequence[str] = ()) -> str:
    """Test accuracy per epoch, percent; best and last marked.

    Args:
      records: the objects of metrics.jsonl.
      more_tests: names of more test sets, a dashed line each.

    Returns:
      The figure.
    """
    from matplotlib.patheffects import withStroke

    figure, axes = _figure(10, 3.7)
    ax = axes[0, 0]
    percent = [
        {
            key: 100 * value if "accuracy" in key else value
            for key, value in record.items()
            if key in ("epoch", "phase") or isinstance(value, int | float)
        }
        for record in records
    ]
    _lines(
        ax,
        percent,
        [
            ("accuracy_many", "many-shot classes", "#93b4f5"),
            ("accuracy_medium", "medium-shot", "#8fc7a2"),
            ("accuracy_few", "few-shot", "#f3b17a"),
        ],
    )
    epochs = _epochs(records)
    values = 100 * _series(records, "test_accuracy")
    ax.plot(epochs, values, color=INK, linewidth=2.2, label="all classes")
    shades = itertools.cycle([PURPLE, "#0e7490", "#be185d", SOFT])
    keys = [(f"{name}_accuracy", name, next(shades)) for name in more_tests]
    _lines(ax, percent, keys, linestyle=(0, (4, 2)))
    # A white halo keeps the text readable where it crosses a curve.
    halo = [withStroke(linewidth=3, foreground="white")]
    best, last = int(np.nanargmax(values)), np.isfinite(values).nonzero()[0][-1]
    for at, name, color, offset, align in (
        (best, "best", GREEN, (0, 11), "center"),
        (last, "last", BLUE, (10, 0), "left"),
    ):
        ax.plot(epochs[at], values[at], "o", color=color, markersize=7)
        ax.annotate(
            f"{name} {values[at]:.1f} %",
            (epochs[at], values[at]),
            xytext=offset,
            textcoords="offset points",
            ha=align,
            va="center",
            color=color,
            fontsize=9.5,
            fontweight="bold",
            path_effects=halo,
            annotation_clip=False,
        )
    _phases(ax, records, names=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("test accuracy, %")
    # Epochs that are not evaluated are gaps.
    top = np.nanmax(np.concatenate([line.get_ydata() for line in ax.lines]))
    ax.set_ylim(None, max(top + 4, values[best] + 6))
    _legend(ax, loc="lower right", ncols=4 + len(more_tests))
    return _svg(figure)


def losses(records: Records, keys: Sequence[str]) -> str:
    """One panel for each training loss over the epochs."""
    columns = min(3, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure, axes = _figure(10, 0.3 + 2.1 * rows, rows, columns)
    for ax, key in zip(axes.flat, keys, strict=False):
        _lines(ax, records, [(key, key, BLUE)])
        _phases(ax, records, names=False)
        ax.set_title(key.replace("_", " "), loc="left", fontsize=10, color=INK)
    figure.set_layout_engine("constrained", h_pad=0.09)
    for ax in axes.flat[len(keys) :]:
        ax.remove()
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    return _svg(figure)


def selection_quality(records: Records) -> str:
    """Quality of the selection over the epochs."""
    figure, axes = _figure(10, 2.9)
    ax = axes[0, 0]
    _lines(
        ax,
        records,
        [
            ("selection_auc", "area under ROC", INK),
            ("clean_precision", "clean precision", BLUE),
            ("clean_recall", "clean recall", "#93b4f5"),
            ("noise_precision", "noise precision", ORANGE),
            ("noise_recall", "noise recall", "#f3b17a"),
        ],
    )
    _phases(ax, records, names=True)
    ax.set_ylim(None, 1.02)
    ax.set_xlabel("epoch")
    _legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _svg(figure)


def clean_histogram(
    clean_probability: np.ndarray,
    given: np.ndarray,
    true: np.ndarray | None,
) -> str:
    """Clean probability, split by truth where it is known."""
    figure, axes = _figure(5, 3.3)
    ax = axes[0, 0]
    bins = np.linspace(0, 1, 31)
    if true is None:
        parts = [("all labels", np.full(len(given), True), BLUE)]
    else:
        right = given == true
        wrong = ~right & (true != UNKNOWN)
        parts = [
            (f"truly clean ({right.sum():,})", right, BLUE),
            (f"truly noisy ({wrong.sum():,})", wrong, ORANGE),
        ]
        if (unknown := true == UNKNOWN).any():
            parts.append((f"not verified ({unknown.sum():,})", unknown, SOFT))
    for name, of, color in parts:
        values = clean_probability[of]
        ax.hist(values, bins, color=color, alpha=0.35, label=name)
        ax.hist(values, bins, color=color, histtype="step", linewidth=1.4)
    ax.set_xlim(0, 1)
    ax.set_xlabel("clean probability")
    ax.set_ylabel("labels")
    _whole(ax, "y")
    _legend(ax, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return _svg(figure)


def class_bars(
    accuracy_per_class: Sequence[float | None],
    given: np.ndarray,
    true: np.ndarray | None,
    class_names: Sequence[str],
) -> str:
    """Accuracy of every class above its training samples, largest first."""
    n = len(class_names)
    given_counts = np.bincount(given, minlength=n)
    true_counts = None if true is None else np.bincount(true, minlength=n)
    counts = given_counts if true_counts is None else true_counts
    order = np.argsort(-counts, kind="stable")
    figure, axes = _figure(5, 3.3, 2, 1)
    top, bottom = axes[:, 0]
    at = np.arange(n)
    values = np.array(
        [math.nan if a is None else 100 * a for a in accuracy_per_class]
    )[order]
    top.bar(at, values, width=0.8, color=BLUE)
    top.set_ylim(0, 118 if n <= 12 else 100)
    top.set_yticks([0, 50, 100])
    top.set_ylabel("accuracy, %")
    if n <= 12:
        for x, value in zip(at, values, strict=True):
            if math.isfinite(value):
                top.text(
                    x,
                    value + 3,
                    f"{value:.0f}",
                    ha="center",
                    fontsize=8,
                    color=INK,
                )
    if true_counts is None:
        bottom.bar(at, given_counts[order], width=0.8, color="#9aa5b1")
    else:
        bottom.bar(
            at, true_counts[order], width=0.8, color="#cbd2d9", label="true"
        )
        bottom.step(
            np.arange(-0.5, n + 0.5),
            np.append(given_counts[order], given_counts[order][-1]),
            where="post",
            color=INK,
            linewidth=1.2,
            label="given",
        )
        largest = max(true_counts.max(), given_counts.max())
        bottom.set_ylim(0, 1.4 * largest)  # room for the legend
        _legend(bottom, loc="upper right", ncols=2)
    bottom.set_ylabel("train samples")
    for ax in (top, bottom):
        ax.set_xlim(-0.6, n - 0.4)
        ax.set_xticks([])
    if n <= 30:
        _names(bottom, "x", [class_names[i] for i in order])
    else:
        bottom.set_xlabel(f"{n} classes, largest first")
    return _svg(figure)


def _names(ax: "Axes", axis: str, names: Sequence[str]) -> None:
    """Class names as tick labels, turned and cut where they are long."""
    # XML has no control characters.
    shown = [console.printable(name) for name in names]
    cut = [name if len(name) <= 14 else name[:13] + "…" for name in shown]
    size = 9 if len(names) <= 12 else 7
    if axis == "y":
        ax.set_yticks(range(len(names)), cut, fontsize=size)
    elif max(map(len, shown)) * len(names) > 40:
        ax.set_xticks(
            range(len(names)),
            cut,
            fontsize=size,
            rotation=45 if len(names) <= 12 else 90,
            ha="right" if len(names) <= 12 else "center",
            rotation_mode="anchor" if len(names) <= 12 else "default",
        )
    else:
        ax.set_xticks(range(len(names)), cut, fontsize=size)


def label_matrix(
    given: np.ndarray, suggested: np.ndarray, class_names: Sequence[str]
) -> str:
    """Given labels (rows) against suggested ones (columns)."""
    from matplotlib.colors import LinearSegmentedColormap
    from sklearn.metrics import confusion_matrix

    n = len(class_names)
    counts = confusion_matrix(given, suggested, labels=np.arange(n))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 3.7 if n <= 4 else 5.6 if n <= 12 else 7.0
    figure, axes = _figure(side, side * 0.92)
    ax = axes[0, 0]
    ax.grid(False)
    colors = LinearSegmentedColormap.from_list("share", ["white", BLUE])
    # The square root lets small shares be seen.
    ax.imshow(
        np.sqrt(share), cmap=colors, vmin=0, vmax=1, interpolation="nearest"
    )
    if n <= 12:
        for i, j in zip(*np.nonzero(counts), strict=True):
            ax.text(
                j,
                i,
                f"{counts[i, j]:,}",
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if share[i, j] > 0.35 else INK,
            )
    if n <= 40:
        _names(ax, "x", class_names)
        _names(ax, "y", class_names)
    ax.set_xlabel("suggested label" if n <= 40 else "suggested label, class id")
    ax.set_ylabel("given label" if n <= 40 else "given label, class id")
    return _svg(figure)

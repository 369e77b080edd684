"""Draws the README's picture from a finished run on digits.

python docs/images/label_audit.py runs/RUN docs/images/label_audit.png
"""

import csv
import pathlib
import sys
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

INK, SOFT, RULE = "#1f2933", "#616e7c", "#d9dee4"
BLUE, ORANGE, GREEN, RED = "#2563eb", "#e8710a", "#15803d", "#b91c1c"
ROWS, CLASSES = 3, 10


def read_labels(workdir: pathlib.Path) -> list[dict[str, str]]:
    """The training rows of labels.csv, the least trusted label first."""
    with (workdir / "labels.csv").open() as file:
        rows = csv.DictReader(file)
        return [row for row in rows if row.get("split") != "held_out"]


def draw_histogram(ax: Any, labels: list[dict[str, str]]) -> None:
    """Clean probability of right and of wrong labels."""
    clean = np.array([float(row["clean_probability"]) for row in labels])
    right = np.array(
        [row["given_label"] == row["true_label"] for row in labels]
    )
    bins = np.linspace(0, 1, 31)
    for name, of, color in (
        ("right labels", right, BLUE),
        ("wrong labels", ~right, ORANGE),
    ):
        values = clean[of]
        text = f"{name} ({of.sum()})"
        ax.hist(values, bins, color=color, alpha=0.35, label=text)
        ax.hist(values, bins, color=color, histtype="step", linewidth=1.4)
    ax.set_xlim(0, 1)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(RULE)
    ax.tick_params(colors=SOFT, labelsize=10)
    ax.set_xlabel("clean probability", color=SOFT, fontsize=11)
    ax.set_ylabel("training labels", color=SOFT, fontsize=11)
    ax.set_yscale("log")
    ax.set_ylim(0.7, 1000)
    ax.legend(
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        loc="upper center",
    )


def draw_suspects(axes: Any, labels: list[dict[str, str]]) -> None:
    """The least trusted images of every given class."""
    images = load_digits().images
    for given in range(CLASSES):
        rows = [row for row in labels if row["given_label"] == str(given)]
        for ax, row in zip(axes[:, given], rows, strict=False):
            ax.imshow(images[int(row["index"])], cmap="gray")
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
            suggested = row["suggested_label"]
            right = suggested == row["true_label"]
            ax.set_xlabel(
                f"{given} → {suggested}",
                fontsize=11,
                labelpad=3,
                color=GREEN if right else RED,
            )


def main() -> None:
    """Reads the run and writes the picture."""
    workdir, out = map(pathlib.Path, sys.argv[1:])
    labels = read_labels(workdir)
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2.1), wspace=0.03)
    wrong = np.mean([row["given_label"] != row["true_label"] for row in labels])
    for part, title in (
        (left, f"{len(labels)} labels, {wrong:.0%} of them wrong"),
        (right, "The least trusted labels of every class: given → suggested"),
    ):
        part.suptitle(title, fontsize=12, color=INK)
    draw_histogram(left.subplots(), labels)
    draw_suspects(right.subplots(ROWS, CLASSES), labels)
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()

"""Figures of many runs, paired by seed: means over settings, and differences.

A row is one recipe, a setting one data set with its noise; rows are compared on
the same settings and seeds.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Figures(NamedTuple):
    """What a run is judged by, fractions and seconds; None where not known.

    Attributes:
      accuracy: mean of the last ten epochs, the headline.
      few: the same of the few-shot classes.
      ece: calibration error on the test images after the last epoch.
      audit: average precision of the ranking of the labels.
      cpu: seconds of the process over all epochs.
    """

    accuracy: float
    few: float | None
    ece: float | None
    audit: float | None
    cpu: float | None


class Cell(NamedTuple):
    """A row in one setting with one seed."""

    row: str
    setting: str
    seed: int


#: A run -> its figures.
Found = Mapping[Cell, Figures]

_HEAD = (
    "",
    "runs",
    "last 10",
    "worst setting",
    "few-shot",
    "ECE",
    "audit AP",
    "CPU s a run",
)


def difference(
    found: Found, row: str, baseline: str, settings: Sequence[str]
) -> tuple[float, float | None] | None:
    r"""The mean paired difference to the baseline, and its standard error.

    .. math:: \bar d = \frac{1}{S} \sum_s \bar d_s, \quad
       \frac{1}{S} \sqrt{\sum_s \frac{\mathrm{var}(d_s)}{n_s}}

    where d_s are the differences in accuracy in setting s of the n_s seeds that
    both rows have.

    Args:
      found: the figures of finished runs.
      row: that is compared.
      baseline: with which.
      settings: S of them.

    Returns:
      Both; None for the error where a setting has one seed, and None where the
      baseline, or the row, lacks a setting.
    """
    means, variances = [], []
    for setting in settings:
        pairs = [
            found[cell].accuracy - found[cell._replace(row=baseline)].accuracy
            for cell in found
            if (cell.row, cell.setting) == (row, setting)
            and cell._replace(row=baseline) in found
        ]
        if not pairs:
            return None
        means.append(statistics.fmean(pairs))
        if len(pairs) > 1:
            variances.append(statistics.variance(pairs) / len(pairs))
    error = None
    if len(variances) == len(means):
        error = math.sqrt(sum(variances)) / len(means)
    return statistics.fmean(means), error


def _mean(values: Iterable[float | None]) -> float:
    """Mean of what is known; NaN where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else math.nan


def _shown(value: float, digits: int = 1, scale: float = 100) -> str:
    return "–" if math.isnan(value) else f"{scale * value:.{digits}f}"


def report(
    found: Found, rows: Sequence[str], settings: Sequence[str], baseline: str
) -> str:
    """Two tables in markdown: means over all settings, and each setting.

    In the second stand accuracy, the paired difference with its standard error,
    and the number of runs.

    A row that lacks a setting has no means; it stands in the second table
    alone.

    Args:
      found: the figures of finished runs.
      rows: in their order.
      settings: that are averaged, each alike, however many seeds it has.
      baseline: row that all are compared with.
    """
    whole = [[*_HEAD, f"to {baseline}"], ["---"] * (len(_HEAD) + 1)]
    parts = [["", *settings], ["---"] * (len(settings) + 1)]
    for row in rows:
        runs = [
            [f for cell, f in found.items() if cell[:2] == (row, setting)]
            for setting in settings
        ]
        if any(runs):
            parts.append([row])
            for setting, some in zip(settings, runs, strict=True):
                apart = difference(found, row, baseline, [setting])
                accuracy = _mean(figures.accuracy for figures in some)
                known = f"{_shown(accuracy)} ({_apart(apart)}; {len(some)})"
                parts[-1].append(known)
        if all(runs):
            apart = difference(found, row, baseline, settings)
            whole.append([row, *_means(runs, settings), _apart(apart)])
    return "\n\n".join(
        "\n".join(f"| {' | '.join(line)} |" for line in table)
        for table in (whole, parts)
    )


def _means(
    runs: Sequence[Sequence[Figures]], settings: Sequence[str]
) -> list[str]:
    """A row's figures, means over settings of means over seeds."""

    def means(name: str) -> list[float]:
        return [_mean(getattr(f, name) for f in some) for some in runs]

    def mean(name: str) -> float:
        return _mean(value for value in means(name) if not math.isnan(value))

    accuracies = means("accuracy")
    worst = int(np.argmin(accuracies))
    return [
        str(sum(map(len, runs))),
        _shown(mean("accuracy")),
        f"{_shown(accuracies[worst])} {settings[worst]}",
        _shown(mean("few")),
        _shown(mean("ece"), 3, 1),
        _shown(mean("audit"), 3, 1),
        _shown(mean("cpu"), 0, 1),
    ]


def _apart(found: tuple[float, float | None] | None) -> str:
    """A difference in points, with its standard error."""
    if found is None:
        return "–"
    mean, error = found
    shown = f"{100 * mean:+.1f}"
    return shown if error is None else f"{shown} ± {100 * error:.1f}"

"""The rows of a run's labels.csv, and which of its labels change."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxnlt.data import decisions
from jaxnlt.results import labels as labels_csv
from jaxnlt.runtime.errors import UserError, logger

FILE = "labels.csv"
#: The share of a class that may change where no person decided.
MOST_OF_A_CLASS = 0.5
#: An ``issue_kind``: one other class is likely.
MISLABELLED = "mislabelled"


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """What a run says of its N training labels, the worst first.

    Attributes:
      file: where it says so.
      ids: int64 [N] indices, or objects [N] that are paths.
      given: objects [N], class names as all labels.
      suggested: objects [N].
      predicted: objects [N].
      predicted_probability: float [N], NaN where nothing was predicted.
      quality: float [N], NaN where the image could not be read.
      clean_probability: float [N], likewise.
      flagged: bool [N].
      kind: objects [N], see ``issue_kind`` of labels.csv.
      more: further columns that a cleaned copy keeps, objects [N].
    """

    file: pathlib.Path
    ids: np.ndarray
    given: np.ndarray
    suggested: np.ndarray
    predicted: np.ndarray
    predicted_probability: np.ndarray
    quality: np.ndarray
    clean_probability: np.ndarray
    flagged: np.ndarray
    kind: np.ndarray
    more: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unreadable(self) -> np.ndarray:
        """Which images no network could be shown, bool [N]."""
        return np.isnan(self.quality)

    @property
    def id_column(self) -> str:
        """``index`` or ``path``."""
        return "index" if self.ids.dtype.kind == "i" else "path"


def read(directory: pathlib.Path, class_names: Sequence[str]) -> Verdicts:
    """Reads the labels.csv of a run.

    Args:
      directory: the workdir.
      class_names: the C classes of the run.

    Returns:
      Its rows, by ``label_quality`` in whatever order they stand.

    Raises:
      UserError: see ``labels.read``; a label is no class of the run.
    """
    file = directory / FILE
    if not os.path.lexists(file):
        raise UserError(
            f"{file}: no such file; a run writes it at its end, and the same "
            "command finishes a run"
        )
    table = labels_csv.read(file)
    order = np.argsort(table["label_quality"], kind="stable")
    known = set(class_names)
    for name in ("given_label", "suggested_label"):
        for row, value in enumerate(table[name].tolist(), 2):
            if value not in known:
                raise UserError(
                    f"{file}: row {row}: {name} {value!r} is no class of the "
                    f"run; there are {', '.join(class_names)}"
                )
    key = "index" if "index" in table else "path"
    sorted_ = {name: column[order] for name, column in table.items()}
    return Verdicts(
        file=file,
        ids=sorted_[key],
        given=sorted_["given_label"],
        suggested=sorted_["suggested_label"],
        predicted=sorted_["predicted_label"],
        predicted_probability=sorted_["predicted_probability"],
        quality=sorted_["label_quality"],
        clean_probability=sorted_["clean_probability"],
        flagged=sorted_["is_label_issue"],
        kind=sorted_["issue_kind"],
        more={
            name: sorted_[name]
            for name in ("true_label", "split")
            if name in sorted_
        },
    )


def by_flags(verdicts: Verdicts, relabel: bool, share: float) -> np.ndarray:
    """The labels after the flags of a run.

    Args:
      verdicts: N of them, the worst first.
      relabel: whether mislabelled images take the suggested label and
        ambiguous ones keep theirs; else all flagged images go.
      share: the most of a class that changes; images that could not be read
        go all the same.

    Returns:
      Objects [N]: class names, None for an image that goes.

    Raises:
      UserError: a class would be left without an image.
    """
    lost = verdicts.unreadable
    asked = verdicts.flagged & ~lost
    doubtful = asked & (verdicts.clean_probability >= 0.5)
    if doubtful.any():
        logger.warning(
            "%s: %d flagged labels stay, which are more likely right than "
            "wrong: the run's networks were unsure of most images; train "
            "longer, or decide on the page of --action=review",
            verdicts.file,
            doubtful.sum(),
        )
    asked &= ~doubtful
    if relabel:
        clear = (verdicts.kind == MISLABELLED) & (
            verdicts.suggested != verdicts.given
        )
        unclear = int((asked & ~clear).sum())
        asked &= clear
        if unclear:
            logger.info(
                "%s: %d flagged labels keep their class, as no other one is "
                "clearly right; --action=review shows them",
                verdicts.file,
                unclear,
            )
    changed = np.zeros(len(verdicts), bool)
    # A share such as 0.29 of 100 is a little less than 29 in floats.
    left = {
        name: int(share * count + 1e-6)
        for name, count in collections.Counter(verdicts.given).items()
    }
    spared: collections.Counter[str] = collections.Counter()
    for row in np.flatnonzero(asked):
        name = verdicts.given[row]
        changed[row] = left[name] > 0
        left[name] -= 1
        spared[name] += not changed[row]
    if spared.total():
        ((worst, count),) = spared.most_common(1)
        logger.warning(
            "%s: %d flagged labels stay, as at most %g of a class changes; "
            "most are of %s (%d); --max_share_per_class raises it",
            verdicts.file,
            spared.total(),
            share,
            worst,
            count,
        )
    labels = verdicts.given.copy()
    labels[changed] = verdicts.suggested[changed] if relabel else None
    labels[lost] = None
    decisions.check_kept(
        str(verdicts.file),
        verdicts.given.tolist(),
        labels.tolist(),
        "lower --max_share_per_class, or decide with --action=review",
    )
    return labels


def by_decisions(
    verdicts: Verdicts, file: pathlib.Path, class_names: Sequence[str]
) -> np.ndarray:
    """The labels after a file of decisions, whatever is flagged.

    Args:
      verdicts: N of them.
      file: a review.csv or changes.csv.
      class_names: the C classes of the run.

    Returns:
      Objects [N]: class names, None for an image that goes.

    Raises:
      UserError: see ``decisions.applied``.
    """
    labels = decisions.applied(
        file,
        "--review",
        [str(key) for key in verdicts.ids.tolist()],
        verdicts.given.tolist(),
        class_names,
    )
    return np.array(labels, object)

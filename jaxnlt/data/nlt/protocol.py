"""H2E's long-tailed noisy sets, drawn from lists of images.

No file is touched here.  The order of the draws is that of the authors:
a balanced clean set, noise from the web, the exchange between classes, and
the long tail cut last, so that noise in a class is hypergeometric.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from jaxnlt.data.records import ListedImage
from jaxnlt.runtime.errors import UserError, logger

COLOURS = ("red", "blue", "purple")

T = TypeVar("T")


def noise_rates(colour: str, rate: float) -> tuple[float, float]:
    """The rates of web noise and of exchanged labels.

    ``red: (rho, 0)``, ``blue: (0, rho)``, ``purple: (rho / 2, rho / 2)``.

    Args:
      colour: one of ``COLOURS``.
      rate: ``rho`` in [0, 1).

    Returns:
      The web rate and the exchange rate.

    Source: ``papers/h2e.md`` section 14.3, steps 2-4.
    """
    return {
        "red": (rate, 0.0),
        "blue": (0.0, rate),
        "purple": (rate / 2, rate / 2),
    }[colour]


def expected_noise(web_rate: float, swap_rate: float, classes: int) -> float:
    """Share of wrong labels, ``rho_web + (1 - 1/C) rho_swap``.

    Args:
      web_rate: ``rho_web``.
      swap_rate: ``rho_swap``.
      classes: ``C``; one in ``C`` exchanged images returns to its own class.

    Returns:
      The share before the tail is cut, and the mean share after it.

    Source: ``papers/h2e.md`` sections 14.3, step 3, and 14.6.
    """
    return web_rate + (1 - 1 / classes) * swap_rate


def shares(size: int, rate: float) -> tuple[int, int]:
    """Clean and web images of a class, ``int(n (1 - rho)), int(n rho)``.

    Both truncate in float64, as the authors' do: of 1000 at rate 0.8 there
    are 199 clean and 800 web images.

    Args:
      size: ``n``.
      rate: ``rho``.

    Returns:
      The two numbers.

    Source: ``papers/h2e.md`` section 14.3, step 2; golden h2e_classcounts.
    """
    return int(size * (1 - rate)), int(size * rate)


def draw(items: Sequence[T], size: int, rng: np.random.Generator) -> list[T]:
    """Draws a random subset.

    Args:
      items: what to draw from.
      size: how many; all where there are fewer.
      rng: source of the draw.

    Returns:
      The drawn items, in random order.
    """
    return [items[i] for i in rng.permutation(len(items))[:size]]


def with_web(
    clean: Sequence[Sequence[ListedImage]],
    web: Sequence[Sequence[ListedImage]],
    size: int,
    rate: float,
    rng: np.random.Generator,
) -> list[list[ListedImage]]:
    """Draws the clean pool of each class and gives it its web images.

    ``size`` clean images a class are drawn first, then of these
    ``int(size (1 - rho))`` and ``int(size rho)`` web images.

    Args:
      clean: for each class the clean candidates.
      web: for each class the web candidates; a class with too few takes all.
      size: images of a class, 1000 in the paper.
      rate: ``rho``, share of web images.
      rng: source of the draws.

    Returns:
      For each class its images, ``size`` of them unless truncation or a lack of
      images makes it less.

    Source: ``papers/h2e.md`` section 14.3, steps 1 and 2.
    """
    keep, add = shares(size, rate)
    pools = [draw(rows, size, rng) for rows in clean]
    return [
        draw(pool, keep, rng) + draw(extra, add, rng)
        for pool, extra in zip(pools, web, strict=True)
    ]


def exchange(
    classes: Sequence[Sequence[ListedImage]],
    size: int,
    rate: float,
    rng: np.random.Generator,
) -> list[list[ListedImage]]:
    """Moves clean images between classes through one pool.

    Every class gives ``int(size rho)`` clean images, then every class takes
    as many at random, its own among them.

    Args:
      classes: for each class its images; those of the web stay.
      size: images of a class, 1000 in the paper.
      rate: ``rho``, share of images that are exchanged.
      rng: source of the draws.

    Returns:
      For each class its images; those in a wrong class have the source
      ``swap``.

    Source: ``papers/h2e.md`` section 14.3, steps 3 and 4.
    """
    moved = int(size * rate)
    stay: list[list[ListedImage]] = []
    pool: list[ListedImage] = []
    for rows in classes:
        clean = [i for i, row in enumerate(rows) if row.source == "imagenet"]
        gone = set(draw(clean, moved, rng))
        pool += [row for i, row in enumerate(rows) if i in gone]
        stay.append([row for i, row in enumerate(rows) if i not in gone])
    pool = draw(pool, len(pool), rng)
    for label, rows in enumerate(stay):
        taken = pool[label * moved : (label + 1) * moved]
        rows += [relabelled(row, label) for row in taken]
    return stay


def relabelled(row: ListedImage, label: int) -> ListedImage:
    """A clean image under a given label."""
    source = "imagenet" if row.true_label == label else "swap"
    return row._replace(label=label, source=source)


def cut_tail(
    classes: Sequence[Sequence[ListedImage]],
    size: int,
    counts: np.ndarray,
    rng: np.random.Generator,
) -> list[list[ListedImage]]:
    """Deletes ``size - n_c`` random images of class ``c``, noise or not.

    A class that is short of images ends below ``n_c`` by as many.

    Args:
      classes: for each class its images.
      size: images of a full class, 1000 in the paper.
      counts: int [C], ``n_c``.
      rng: source of the draws.

    Returns:
      For each class the images that are left.

    Source: ``papers/h2e.md`` section 14.3, step 5.
    """
    return [
        draw(rows, max(len(rows) - (size - int(count)), 0), rng)
        for rows, count in zip(classes, counts, strict=True)
    ]


def imagenet_nlt(
    clean: Sequence[Sequence[ListedImage]],
    web: Sequence[Sequence[ListedImage]],
    names: Sequence[str],
    counts: np.ndarray,
    rates: tuple[float, float],
    rng: np.random.Generator,
) -> list[list[ListedImage]]:
    """ImageNet-NLT: clean pool, web noise, exchange, tail.

    Args:
      clean: for each class all its ImageNet images, in a fixed order.
      web: for each class the web images with that label, in a fixed order.
      names: ``C`` class names, for messages.
      counts: int [C], ``n_c``; ``n_0`` is the size before the cut.
      rates: see ``noise_rates``.
      rng: source of all draws.

    Returns:
      For each class its images.

    Raises:
      UserError: a class ends without an image.

    Source: ``papers/h2e.md`` section 14.3.
    """
    size, (web_rate, swap_rate) = int(counts[0]), rates
    classes = with_web(clean, web, size, web_rate, rng)
    classes = exchange(classes, size, swap_rate, rng)
    classes = cut_tail(classes, size, counts, rng)
    for name, rows, count in zip(names, classes, counts, strict=True):
        if not rows:
            raise UserError(
                f"class {name}: no image is left, its raw images are too few "
                f"for {size} a class before the tail is cut"
            )
        if len(rows) < count:
            logger.warning(
                "class %s: has %d images instead of %d, its raw images are "
                "too few or the noise rate rounds down",
                name,
                len(rows),
                count,
            )
    return classes


def keep_counts(
    classes: Sequence[Sequence[ListedImage]],
    names: Sequence[str],
    counts: np.ndarray,
    rng: np.random.Generator,
) -> list[list[ListedImage]]:
    """Animal10-NLT and Food101-NLT: ``n_c`` random images of each class.

    Args:
      classes: for each class all its images, in a fixed order.
      names: ``C`` class names, for messages.
      counts: int [C], ``n_c``.
      rng: source of the draws.

    Returns:
      For each class its images.

    Raises:
      UserError: a class has fewer than ``n_c``.

    Source: ``papers/h2e.md`` sections 14.4 and 14.5.
    """
    for name, rows, count in zip(names, classes, counts, strict=True):
        if len(rows) < count:
            raise UserError(
                f"class {name}: has {len(rows)} raw images, {count} are "
                "needed; choose a smaller --n_max"
            )
    return [
        draw(rows, int(count), rng)
        for rows, count in zip(classes, counts, strict=True)
    ]

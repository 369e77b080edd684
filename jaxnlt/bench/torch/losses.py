"""The losses of DivideMix, SFA and DaSC in PyTorch, from their formulas.

Each is a function of one step's views and draws, as in our method files, so
that both sides can be given the same ones.

Shapes: Bx labelled and Bu unlabelled rows, C classes, D of projections.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxnlt.bench.torch.network import Network, Tensor


class Rows(NamedTuple):
    """The rows that a step takes from one stream.

    Attributes:
      views: of standardised images [B, channels, H, W].
      labels: int64 [B] given labels.
      weights: float32 [B] of the given labels.
    """

    views: Sequence[Tensor]
    labels: Tensor
    weights: Tensor


class Step(NamedTuple):
    """What a loss is given.

    Attributes:
      net: the network that is trained.
      peer: the other one.
      x: labelled rows, or all.
      u: unlabelled rows; None in the warm-up.
      coefficient: of mixup, a number.
      permutation: int64 [2 Bx + 2 Bu] partners.
      memory: float32 [m, D] keys of earlier batches, oldest first.
      log_prior: float32 [C] of the class sizes of the phase.
      lambda_u: weight of the squared error.
      options: fields of ``config.METHOD``.
    """

    net: Network
    peer: Network
    x: Rows
    u: Rows | None
    coefficient: float
    permutation: Tensor
    memory: Tensor
    log_prior: Tensor
    lambda_u: float
    options: Any


#: One step -> its loss, a scalar, and the memory after it.
Loss = Callable[[Step], tuple[Tensor, Tensor]]


# --- pieces ------------------------------------------------------------------


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows; targets are labels or probabilities."""
    from torch.nn import functional

    return functional.cross_entropy(logits, targets)


def _squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows and classes.  Source: DivideMix eq. 10."""
    return ((logits.softmax(1) - targets) ** 2).mean()


def _penalty(logits: Tensor) -> Tensor:
    """KL of the uniform from the mean prediction.  Source: DivideMix eq. 11."""
    mean = logits.softmax(1).mean(0)
    return -mean.log().mean() - math.log(logits.shape[1])


def _mean_probs(logits: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([z.softmax(1) for z in logits]).mean(0)


def _refine(rows: Rows, probs: Tensor) -> Tensor:
    """Source: DivideMix eq. 3."""
    from torch.nn import functional

    one_hot = functional.one_hot(rows.labels, probs.shape[1])
    weights = rows.weights[:, None]
    return weights * one_hot + (1 - weights) * probs


def _sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Source: DivideMix eq. 4."""
    powered = probs ** (1 / temperature)
    return powered / powered.sum(1, keepdim=True)


def _mixup(values: Tensor, step: Step) -> Tensor:
    """Source: Zhang et al. 2018, eq. 1."""
    own = step.coefficient
    return own * values + (1 - own) * values[step.permutation]


def _terms(
    logits: Tensor, targets: Tensor, num_labelled: int, lambda_u: float
) -> Tensor:
    """Both terms of one head on a mixed batch.  Source: DivideMix eq. 9, 10."""
    labelled = _cross_entropy(logits[:num_labelled], targets[:num_labelled])
    unlabelled = _squared_error(logits[num_labelled:], targets[num_labelled:])
    return labelled + lambda_u * unlabelled


def _class_balanced_contrastive(
    features: Tensor, targets: Tensor, prototypes: Tensor, temperature: float
) -> Tensor:
    """SBCL of each row, [n].  Source: ``papers/dasc.md`` section 6.3."""
    import torch

    rows, classes = targets.shape
    everyone = torch.cat([features, prototypes])
    eye = torch.eye(classes, device=targets.device)
    all_targets = torch.cat([targets, eye])
    affinity = targets @ all_targets.T
    affinity.fill_diagonal_(0)
    names = all_targets.argmax(1)
    sizes = torch.bincount(names, minlength=classes)
    similarity = features @ everyone.T / temperature
    shares = similarity - (sizes[names] - affinity).log()
    itself = torch.eye(
        rows, rows + classes, dtype=torch.bool, device=targets.device
    )
    denominator = shares.masked_fill(itself, -torch.inf).logsumexp(1)
    log_prob = similarity - denominator[:, None]
    return -(affinity * log_prob).sum(1) / affinity.sum(1)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


def _info_nce(
    queries: Tensor, keys: Tensor, memory: Tensor, temperature: float
) -> Tensor:
    """MIDL of each row, [B].  Source: ``papers/dasc.md`` section 6.4."""
    import torch
    from torch.nn import functional

    own = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([own, queries @ memory.T], 1) / temperature
    first = torch.zeros(len(queries), dtype=torch.long, device=logits.device)
    return functional.cross_entropy(logits, first, reduction="none")


def _remember(step: Step, keys: Tensor) -> Tensor:
    """The memory with further keys, the oldest of a full one dropped."""
    import torch

    kept = torch.cat([step.memory, keys.detach()])
    return kept[-step.options.memory_size :]


# --- DivideMix and SFA -------------------------------------------------------


def _given_labels(step: Step, balanced: bool) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the given labels, plus that of the balanced head."""
    heads = ("logits", "balanced") if balanced else ("logits",)
    (view,) = step.x.views
    out = step.net(view, heads)
    loss = _cross_entropy(out["logits"], step.x.labels)
    if balanced:
        adjusted = out["balanced"] + step.log_prior
        loss = loss + _cross_entropy(adjusted, step.x.labels)
    return loss, step.memory


def _mixmatch(step: Step, balanced: bool) -> tuple[Tensor, Tensor]:
    """DivideMix's step, with the terms of the balanced head if there is one.

    Source: DivideMix eq. 3-12; ``papers/sfa.md`` section 7.
    """
    import torch

    net, peer, x, u = step.net, step.peer, step.x, step.u
    assert u is not None
    head = ("logits",)
    with torch.no_grad():
        own_u = [net(view, head)["logits"] for view in u.views]
        own_x = [net(view, head)["logits"] for view in x.views]
        peer_u = [peer(view, head, False)["logits"] for view in u.views]
        temperature = step.options.sharpen_temperature
        guessed = _sharpen(_mean_probs(own_u + peer_u), temperature)
        refined = _sharpen(_refine(x, _mean_probs(own_x)), temperature)
        targets = torch.cat([refined, refined, guessed, guessed])
        images = _mixup(torch.cat([*x.views, *u.views]), step)
        targets = _mixup(targets, step)
    num_x, lambda_u = 2 * len(x.labels), step.lambda_u
    out = net(images, ("logits", "balanced") if balanced else head)
    loss = _terms(out["logits"], targets, num_x, lambda_u)
    loss = loss + _penalty(out["logits"])
    if balanced:
        adjusted = out["balanced"] + step.log_prior
        loss = loss + _terms(adjusted, targets, num_x, lambda_u)
    return loss, step.memory


# --- DaSC --------------------------------------------------------------------


def _both_heads(out: dict[str, Tensor], step: Step) -> Tensor:
    labels = step.x.labels
    balanced = _cross_entropy(out["balanced"] + step.log_prior, labels)
    return _cross_entropy(out["logits"], labels) + balanced


def _dasc_warmup(step: Step) -> tuple[Tensor, Tensor]:
    """Source: ``papers/dasc.md`` section 5, before SBCL."""
    first, second = (
        _both_heads(step.net(view, ("logits", "balanced")), step)
        for view in step.x.views
    )
    return (first + second) / 2, step.memory


def _dasc_warmup_contrast(step: Step) -> tuple[Tensor, Tensor]:
    """Source: ``papers/dasc.md`` section 5, with SBCL."""
    import torch
    from torch.nn import functional

    options, (view_a, view_b) = step.options, step.x.views
    heads = ("logits", "balanced", "projection")
    a = step.net(view_a, (*heads, "prototypes"))
    b = step.net(view_b, heads)
    one_hot = functional.one_hot(
        step.x.labels.repeat(2), len(step.log_prior)
    ).float()
    contrast = _class_balanced_contrastive(
        torch.cat([a["projection"], b["projection"]]),
        one_hot,
        a["prototypes"],
        options.contrast_temperature,
    ).mean()
    loss = (_both_heads(a, step) + _both_heads(b, step)) / 2
    memory = step.memory
    if options.midl:
        memory = _remember(step, a["projection"])
    return loss + options.contrast_weight * contrast, memory


def _dasc_semi(step: Step) -> tuple[Tensor, Tensor]:
    """Source: ``papers/dasc.md`` sections 6.2 to 6.4."""
    import torch

    net, peer, x, u, options = step.net, step.peer, step.x, step.u, step.options
    assert u is not None
    both = ("logits", "balanced")
    with torch.no_grad():
        own_u = net(u.views[2], both[:1])
        own_x = net(x.views[2], both)
        peer_u = peer(u.views[2], both[:1], False)
        peer_x = peer(x.views[2], both, False)
        guessed = _mean_probs([own_u["logits"], peer_u["logits"]])
        seen = [out[head] for out in (own_x, peer_x) for head in both]
        refined = _refine(x, _mean_probs(seen))
        guessed = _sharpen(guessed, options.sharpen_temperature)
        refined = _sharpen(refined, options.sharpen_temperature)
        targets = torch.cat([refined, refined, guessed, guessed])
        images = torch.cat([*x.views[:2], *u.views[:2]])
        mixed, mixed_targets = _mixup(images, step), _mixup(targets, step)
    num_x, lambda_u = 2 * len(x.labels), step.lambda_u
    out = net(mixed, both + ("projection",) * options.contrast)
    loss = _terms(out["logits"], mixed_targets, num_x, lambda_u)
    adjusted = out["balanced"] + step.log_prior
    loss = loss + _terms(adjusted, mixed_targets, num_x, lambda_u)
    if options.prior_penalty:
        loss = loss + _penalty(out["logits"])
    if not options.contrast:
        return loss, step.memory

    plain = net(images, ("projection", "prototypes"))
    largest = targets.max(1).values
    contrast = _class_balanced_contrastive(
        plain["projection"],
        targets,
        plain["prototypes"],
        options.contrast_temperature,
    )
    sure = largest > options.confidence_threshold
    loss = loss + options.contrast_weight * _masked_mean(contrast, sure)
    if not options.midl:
        return loss, step.memory
    sizes = [len(x.labels)] * 2 + [len(u.labels)] * 2
    x1, x2, u1, u2 = plain["projection"].split(sizes)
    queries, keys = torch.cat([x1, u1]), torch.cat([x2, u2]).detach()
    unsure = (largest < options.confidence_threshold).split(sizes)
    if len(step.memory):
        midl = _masked_mean(
            _info_nce(queries, keys, step.memory, options.midl_temperature),
            torch.cat([unsure[0], unsure[2]]),
        )
        loss = loss + options.midl_weight * midl
    _, mixed_x2, _, mixed_u2 = out["projection"].split(sizes)
    return loss, _remember(step, torch.cat([mixed_x2, mixed_u2]))


# --- the table ---------------------------------------------------------------

#: Method -> phase -> loss.
LOSSES: dict[str, dict[str, Loss]] = {
    "dividemix": {
        "warmup": lambda step: _given_labels(step, balanced=False),
        "semi": lambda step: _mixmatch(step, balanced=False),
    },
    "sfa": {
        "warmup": lambda step: _given_labels(step, balanced=True),
        "semi": lambda step: _mixmatch(step, balanced=True),
    },
    "dasc": {
        "warmup": _dasc_warmup,
        "warmup_contrast": _dasc_warmup_contrast,
        "semi": _dasc_semi,
    },
}
#: Method -> fields of its options with the values that its losses have here.
SETTLED: dict[str, dict[str, Any]] = {
    "dividemix": {"unlabelled_loss": True, "confidence_penalty": False},
    "sfa": {"unlabelled_loss": True},
    "dasc": {
        "midl_label": "zero",
        "midl_key": "mixed_batch",
        "memory_rows": "all",
    },
}

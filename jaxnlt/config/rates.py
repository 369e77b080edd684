"""Step sizes over the epochs of a run, and epochs that recur."""

import collections

import jax
import ml_collections
import optax

from jaxnlt.runtime.errors import UserError


def step_size(config: ml_collections.ConfigDict, epoch: int) -> float:
    r"""Step size of an epoch: rises, stays, and falls.

    .. math:: \eta_e = \eta \min\Big(1, \frac{e + 1}{r}\Big)\, f_e

    where f_e multiplies the factors of the drops up to e, or is half a cosine
    from 1 after the rise to f after the last epoch,

    .. math:: f_e = f + \frac{1 - f}{2}
       \Big(1 + \cos\frac{\pi \max(0, e - r)}{E - r}\Big)

    Args:
      config: with its ``epochs`` E and ``optimizer``: ``learning_rate`` is eta,
        ``rise`` r and ``final`` f.
      epoch: e, from 0.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, eq. 5; Goyal et al.,
      arXiv 1706.02677, section 2.2 (gradual warm-up).
    """
    optimizer = config.optimizer
    rate, rise = optimizer.learning_rate, optimizer.rise
    share = min(1.0, (epoch + 1) / rise) if rise else 1.0
    if optimizer.schedule == "cosine":
        falling = optax.cosine_decay_schedule(
            rate, config.epochs - rise, optimizer.final
        )
        return share * at_epoch(falling, max(0, epoch - rise))
    drops = collections.Counter(optimizer.drops)
    factors = {drop: optimizer.drop_factor**n for drop, n in drops.items()}
    dropping = optax.piecewise_constant_schedule(rate, factors)
    return share * at_epoch(dropping, epoch)


def check_own(config: ml_collections.ConfigDict, own: str) -> None:
    """Refuses a schedule that a method with its own would not follow.

    Args:
      config: the whole configuration.
      own: the method's field, or what else makes its schedule.

    Raises:
      UserError: naming the field.
    """
    optimizer = config.optimizer
    for field, usual in (("schedule", "drops"), ("rise", 0)):
        if optimizer[field] != usual:
            raise UserError(
                f"config.optimizer.{field}: {config.method} follows {own}; "
                f"leave it at {usual}"
            )


def at_epoch(schedule: optax.Schedule, epoch: float) -> float:
    """The value of a schedule, computed in float64 so that logs show no noise.

    Args:
      schedule: of optax, over epochs.
      epoch: counted as the schedule does.
    """
    with jax.enable_x64(True):
        return float(schedule(epoch))


def recurs(epoch: int, period: float) -> bool:
    """Whether an epoch is the last of a period.

    Args:
      epoch: counted from 0.
      period: in epochs; rounded, and at least 2, so that semi-supervised
        epochs remain in a short schedule.
    """
    return (epoch + 1) % max(2, round(period)) == 0

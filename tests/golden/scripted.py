"""A network that answers a step's calls with stored logits, in turn."""

import functools

import jax

from jaxnlt import method as base
from tests import typed


class Script:
    """Stands in for `Network.apply`; the parameters are what heads give.

    Train-mode calls return `guesses` one after the other, then the parameters;
    eval-mode calls, the peer's, return `peers`.

    Attributes:
      seen: images of every train-mode call, in order.
      seen_by_peer: images of every eval-mode call.
    """

    def __init__(self, guesses=(), peers=()):
        self.guesses, self.peers = list(guesses), list(peers)
        self.seen, self.seen_by_peer = [], []

    def apply(self, variables, images, heads, train):
        stored = self.guesses if train else self.peers
        (self.seen if train else self.seen_by_peer).append(images)
        params = variables["params"]
        out = [stored.pop(0)] if stored else [params[head] for head in heads]
        return dict(zip(heads, out, strict=True)), variables["batch_stats"]

    def net(self):
        """The network within one step."""
        return base.Net(self.apply, {}, {"params": None, "batch_stats": {}})


def loss_and_grads(loss, params, x, division=None):
    """((loss, terms), gradients) of a batch for which heads give `params`."""

    def total(params):
        net, batch = Script().net(), typed.batch(x=x)
        result = loss(net, params, batch, (), division or typed.division(), ())
        return result.loss, result.terms

    return jax.jit(jax.value_and_grad(total, has_aux=True))(params)


def spy(monkeypatch, module, name):
    """Records arguments and result of every call of module.name."""
    calls = []
    real = getattr(module, name)

    @functools.wraps(real)
    def recorded(*args, **kwargs):
        result = real(*args, **kwargs)
        calls.append((args, result))
        return result

    monkeypatch.setattr(module, name, recorded)
    return calls

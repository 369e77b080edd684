"""Selectors by name: any two-network method can take another method's.

``--config.selector=sfa`` under configs/dasc.py trains as DaSC does on samples
that SFA selects.  The fields of SFA's selector are then in ``config.sfa``, with
the values that configs/sfa.py gives them on the same benchmark.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxnlt.config import fields
from jaxnlt.runtime.errors import UserError, one_of


class Entry(NamedTuple):
    """Where a selector is defined.

    Attributes:
      method: file in jaxnlt/methods/.
      name: its class there; the fields are those of its ``options_type``.
      config: file in configs/ that sets the fields.
      keys: what has to stand after the colon for that file to set them.
    """

    method: str
    name: str
    config: str
    keys: tuple[str, ...] = ()


SELECTORS = {
    "dividemix": Entry("dividemix", "LossMixture", "dividemix"),
    "sfa": Entry("sfa", "StochasticCentroids", "sfa"),
    "rolt_plus": Entry("rolt_plus", "CoDivide", "rolt", ("plus",)),
    "tabasco": Entry("tabasco", "BiDimensional", "tabasco"),
    "unicon": Entry("unicon", "UniformSelection", "unicon"),
    "dacc": Entry("dasc", "DaCC", "dasc"),
}


def find(name: str) -> type:
    """The class of a selector.

    Raises:
      UserError: an unknown name.
    """
    one_of("config.selector", name, SELECTORS)
    entry = SELECTORS[name]
    module = importlib.import_module(f"jaxnlt.methods.{entry.method}")
    return getattr(module, entry.name)


def create(
    name: str, values: Mapping[str, Any], where: str, heads: tuple[str, ...]
) -> Any:
    """Builds a selector for networks with certain heads.

    Args:
      name: of ``SELECTORS``.
      values: config values that hold its fields.
      where: dotted name of ``values``.
      heads: heads of the networks, ``features`` aside, which all have.

    Returns:
      A ``method.Selector``.

    Raises:
      UserError: an unknown name, a field out of its range, or the networks
        lack a head that the selector reads.
    """
    kind: Any = find(name)
    selector = kind(fields.read(kind.options_type, values, where), heads)
    lacking = set(selector.outputs) - {"features", *heads}
    if lacking:
        raise UserError(
            f"config.selector: {name} reads {', '.join(sorted(lacking))}, "
            f"but the networks have only {', '.join(heads)}"
        )
    return selector

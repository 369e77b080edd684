"""Which given labels are wrong, how sure that is, and how many there are."""

from jaxnlt.auditing.given_probs import audit
from jaxnlt.auditing.verdict import Audit

__all__ = ["Audit", "audit"]

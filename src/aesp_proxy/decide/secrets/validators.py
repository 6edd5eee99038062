"""The checks that a rule can ask of a secret by name: ``validate = ["luhn"]``.

Rules:

- A check is pure, takes bytes of any kind and length, never raises, and costs time
  linear in them.
- A check that cannot tell says true: only what is proven wrong is let go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from aesp_proxy.decide.secrets.measure import luhn_holds

type Validator = Callable[[bytes], bool]

VALIDATORS: Mapping[str, Validator] = MappingProxyType({"luhn": luhn_holds})

"""The running proxy of ``tests/plugins``, for every test here."""

from __future__ import annotations

from dns_lab import dns_lab
from egress_lab import answer_of, canary, proxy, start

__all__ = ["answer_of", "canary", "dns_lab", "proxy", "start"]

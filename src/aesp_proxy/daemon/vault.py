"""Read secrets of HashiCorp Vault, KV version 2, by its HTTP API.

What it answers is told in no error, and neither is the token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from aesp_proxy.errors import ConfigError

_WAIT_S_MAX: Final = 10.0
_ANSWER_BYTES_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Vault:
    """One vault; ``ca_file`` are the roots it is trusted by, None for the system's."""

    address: str
    token: str = field(repr=False)
    namespace: str = ""
    ca_file: Path | None = None

    def read(self, path: str) -> list[tuple[str, bytes]]:
        """Return the keys of the secret at MOUNT/PATH with their values; ConfigError else."""
        mount, _, rest = path.strip("/").partition("/")
        where = f"vault:{path}"
        if not rest:
            raise ConfigError("it is not MOUNT/PATH", where=where)
        answer = self._get(f"{self.address.rstrip('/')}/v1/{mount}/data/{rest}", where)
        if answer.status_code != httpx.codes.OK:
            raise ConfigError(f"the vault answers {answer.status_code}", where=where)
        if len(answer.content) > _ANSWER_BYTES_MAX:
            raise ConfigError(f"longer than {_ANSWER_BYTES_MAX} bytes", where=where)
        try:
            data = answer.json()["data"]["data"]
            return [(f"{rest}/{key}", str(value).encode()) for key, value in data.items()]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError("the answer is no secret of KV version 2", where=where) from None

    def _get(self, url: str, where: str) -> httpx.Response:
        headers = {"X-Vault-Token": self.token}
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        verify = str(self.ca_file) if self.ca_file is not None else True
        try:
            context = httpx.create_ssl_context(verify=verify, trust_env=False)
            context.keylog_filename = None  # type: ignore[assignment]  # Python itself follows SSLKEYLOGFILE
            with httpx.Client(verify=context, timeout=_WAIT_S_MAX, trust_env=False) as client:
                return client.get(url, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # Not the error's own words: they may hold a header.
            kind = type(error).__name__
            raise ConfigError(f"the vault does not answer: {kind}", where=where) from None

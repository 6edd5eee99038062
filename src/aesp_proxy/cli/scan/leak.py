"""The nouns of a scan: where bytes come from, and one leak in them."""

from __future__ import annotations

from dataclasses import dataclass

from aesp_proxy.model.decision import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    r"""Where scanned bytes come from; ``commit`` and what follows only in git history.

    ``file`` is a path as it is told: bytes of it that are not UTF-8 are ``\xHH``.
    """

    file: str
    commit: str = ""
    author: str = ""
    email: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One place where a secret stands, without the secret.

    Lines and columns count from 1; all are 0 where a file leaks by its name. Columns count
    bytes and the last is within the secret, as gitleaks has them; ``chars`` are the same
    columns in code points, the second behind the secret, as SARIF has them. ``value`` is a
    keyed hash of the secret that is only compared within one run and never written. ``via``
    is what the secret is wrapped in, whose place is then told. ``allowed`` says that a
    comment on its lines lets it be.
    """

    source: Source
    rule: str
    severity: Severity
    start_line: int
    end_line: int
    start_column: int
    end_column: int
    chars: tuple[int, int]
    offset: int
    length: int
    masked: str
    entropy: float
    value: str
    via: str = ""
    allowed: bool = False

    @property
    def of_name(self) -> bool:
        """Whether it is the name of the file that leaks, and nothing in it."""
        return self.start_line == 0

    @property
    def place(self) -> str:
        """Return ``FILE:RULE:LINE``: gitleaks' fingerprint without a commit."""
        return f"{self.source.file}:{self.rule}:{self.start_line}"

    @property
    def fingerprint(self) -> str:
        """Return gitleaks' fingerprint: ``[COMMIT:]FILE:RULE:LINE``."""
        return f"{self.source.commit}:{self.place}" if self.source.commit else self.place


def file_name(path: bytes) -> str:
    r"""Return a path as text: what is not UTF-8 in it as ``\xHH``."""
    return path.decode("utf-8", "backslashreplace")

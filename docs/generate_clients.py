"""The page of clients, from the table that the tests play (``tests/plugins/client_table.py``)."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

INTRODUCTION = """# Clients

{note}
Which programs work through the proxy, what each needs, and what it says when it is refused.
`make live` plays every row with a real program, real servers and no other variable than the row
names, through every entry, once allowed and once refused.

Under `aesp-proxy run` nothing is to be set: the command's environment has all of it
([settings](settings.md)), and what does not use it is captured. Elsewhere (the service) set what
stands in the row:

"""

VALUES = (
    ("variable of the proxy", "`http://HOST:PORT`, as the service listens"),
    (
        "variable of trust",
        (
            "a PEM file of the system's roots and the host CA (`ca/ca-cert.pem` in the state "
            "directory); `NODE_EXTRA_CA_CERTS` adds to the roots and takes the host CA alone"
        ),
    ),
    (
        "`JAVA_TOOL_OPTIONS`",
        (
            "`-Dhttps.proxyHost=HOST -Dhttps.proxyPort=PORT` and the same with `http.`, "
            "`-Dhttp.nonProxyHosts=`; for trust `-Djavax.net.ssl.trustStore=FILE`, a PKCS#12 store "
            "of the same certificates"
        ),
    ),
    ("`WGETRC`", "a file with `ca_certificate = FILE`"),
    ("SOCKS5", "the same host and port"),
)

NEEDS = """
Captured programs need the variable of trust and nothing else.

"""

REFUSALS = """
## What a refused client shows

Exit code, and words of what is printed: where the host is refused, by entry, and where the host is
allowed and the request is not (there the rule's message is "this part is closed to agents"). The
reason of an HTTP refusal stands in the status line, in `AESP-Reason` and in the body
([egress](egress.md#what-is-refused-and-how)); how much of that is shown is the client's choice.
`aesp-proxy audit tail` shows all of them.

"""

END = """
## Limits

- **What is not in the table** has not been tried. `run` sets variables for more
  ([settings](settings.md#the-environment-of-the-command)).
- **A name that cannot be resolved may be one that is refused.** To a captured program the resolver
  says that a refused name does not exist; there is no place for a reason in that answer.
  `aesp-proxy audit tail` has it (`dns.query`, `host_not_allowed`).
- **Retries.** pip, uv, cargo and npm take a refused CONNECT or name for a failure of the network
  and try again for seconds; the notes say how to stop that. A refused *request* is tried again by
  none of them.
- **Pinned certificates** (some mobile SDKs, some updaters): list the host under
  [`egress.passthrough`](egress.md#passthrough).
- **HTTP/3** is dropped, and clients fall back. **HTTP/2 without TLS** is refused; gRPC needs TLS.
- **git over SSH** and other TCP: [egress](egress.md#git-over-ssh).
- **Unix sockets, `sudo`, nested containers** do not work under `run`:
  [isolation](egress.md#isolation).
"""


def page(note: str, table: ModuleType) -> str:
    """Write the page."""
    clients: tuple[Any, ...] = table.CLIENTS
    return "".join(
        [
            INTRODUCTION.format(note=note.strip()),
            _rows(("", "set it to"), VALUES),
            NEEDS,
            _rows(
                ("client", "proxy", "trust", "SOCKS5", "notes"),
                ((c.title, _proxy(c), _trust(c), _socks(c), c.note) for c in clients),
            ),
            REFUSALS,
            _rows(
                ("client", "proxy", "captured", "SOCKS5", "request"),
                (
                    (c.title, *map(_refusal, (_by_proxy(c), c.captured, c.socks_host, c.request)))
                    for c in clients
                ),
            ),
            END,
        ]
    )


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _proxy(client: Any) -> str:  # noqa: ANN401 - of a module that is read by its path
    return ", ".join(map(_code, client.proxy)) or "captured only"


def _by_proxy(client: Any) -> Any:  # noqa: ANN401
    return client.host if client.proxy else None


def _trust(client: Any) -> str:  # noqa: ANN401
    return ", ".join(map(_code, client.trust)) or "not needed"


def _socks(client: Any) -> str:  # noqa: ANN401
    if client.socks is None:
        return "no"
    places = [f"{name}={url.replace('{proxy}', 'HOST:PORT')}" for name, url in client.socks.items()]
    return ", ".join(map(_code, places)) or "see notes"


def _refusal(refusal: Any) -> str:  # noqa: ANN401
    return f"{refusal.code}: {_code(refusal.text)}" if refusal is not None else ""

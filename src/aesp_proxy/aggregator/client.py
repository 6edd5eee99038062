"""Ask an aggregator over HTTPS with the certificate that ``enroll`` has written.

Rules: the server is known by the pinned CA only, never by the system's; what it
answers is bounded and must be what we asked for, else it is an error.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import httpx

from aesp_proxy.errors import ConfigError, InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
TIMEOUT_S: Final = 15.0
_SHUT_OUT: Final = "revoked or ended? `aesp-proxy aggregator enroll --reader` lets it in again"


def client_context(directory: Path) -> ssl.SSLContext:
    """Make the TLS side from ``ca.pem``, ``client.pem`` and ``client.key``; ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cafile=directory / "ca.pem")
        context.load_cert_chain(directory / "client.pem", directory / "client.key")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"holds no usable certificate: {error}",
            where=str(directory),
            remedy="give --client, a directory written by aggregator enroll",
        ) from error
    return context


def ask_events(
    urls: Sequence[str], directory: Path, parameters: Mapping[str, str]
) -> dict[str, Any]:
    """Ask for one page of events; see :func:`ask`."""
    return ask(urls, directory, "events", parameters)


def ask_proof(urls: Sequence[str], directory: Path, event_id: str) -> tuple[dict[str, Any], bytes]:
    """Ask for the proof of an event, and for the list of the log's keys; both unverified."""
    proof = ask(urls, directory, "proof", {"id": event_id})
    shown = ask(urls, directory, "log/proof", {"batch": "1", "since": "0"})
    return proof, str(shown.get("keys", "")).encode()


def ask(
    urls: Sequence[str], directory: Path, route: str, parameters: Mapping[str, str]
) -> dict[str, Any]:
    """Ask a route of the aggregators in turn; return the JSON object of the first that answers.

    InputError when it refuses the question, UnavailableError when none can be
    reached, is who it should be and answers with what was asked for.
    """
    for url in urls[:-1]:
        with suppress(UnavailableError):
            return _ask(url, directory, route, parameters)
    return _ask(urls[-1], directory, route, parameters)


def _ask(url: str, directory: Path, route: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    try:
        with httpx.Client(
            verify=client_context(directory), timeout=TIMEOUT_S, trust_env=False
        ) as client:
            response = client.get(f"{url.rstrip('/')}/v1/{route}", params=dict(parameters))
            answer = response.json() if len(response.content) <= ANSWER_BYTES_MAX else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise UnavailableError(
            f"no answer: {error}", where=url, remedy="check --url and the certificate"
        ) from error
    if not isinstance(answer, dict):
        raise UnavailableError("the answer is not what was asked for", where=url)
    if response.status_code != httpx.codes.OK:
        detail = str(answer.get("detail", response.status_code))
        if response.is_client_error:
            is_shut_out = answer.get("code") == "unknown_certificate"
            raise InputError(detail, where=url, remedy=_SHUT_OUT if is_shut_out else "")
        raise UnavailableError(detail, where=url)
    return answer

"""Learn where else the aggregators are: what one of them says, its peer having been checked.

Rules: what is said comes over a connection that the pinned authority vouches for, and leads
to nobody whom it does not vouch for too; it is bounded and each URL is checked before one is
kept. The one that has answered stays, so a wrong word at the aggregator cuts no host off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aesp_proxy.errors import InputError
from aesp_proxy.forward.transport import ADDRESSES_MAX, HttpsTransport, parse_url, urls
from aesp_proxy.keys import write_atomic
from aesp_proxy.record.enrolment import read_message

ROUTE: Final = "addresses"
_URL_CHARS_MAX: Final = 300


def learn(directory: Path, transport: HttpsTransport) -> bool:
    """Ask for all addresses and keep them in ``url``; whether there are other ones now.

    UnavailableError when nobody answers, InputError when the answer holds no addresses.
    """
    answer = transport.get(ROUTE)
    if answer.status != 200:
        return False  # an older aggregator has no such route
    said = read_message(answer.body, ("urls",))["urls"].split("\n")
    wanted = [url for url in dict.fromkeys(said) if url]
    if not wanted:
        return False  # it was told of no others
    for url in wanted:
        if len(url) > _URL_CHARS_MAX or not url.isprintable():
            raise InputError("the aggregator names an address that is none")
        parse_url(url, "the aggregator's addresses")
    held = urls(directory)
    answered = held[transport.turn] if transport.turn < len(held) else held[0]
    kept = list(dict.fromkeys((*wanted[: ADDRESSES_MAX - 1], answered)))
    if set(kept) == set(held):
        return False
    write_atomic(directory / "url", "".join(f"{url}\n" for url in kept).encode(), mode=0o644)
    return True

"""The attacks that ``doctor --attack`` makes: rows and words of docs/bypass-resistance.md."""

from __future__ import annotations

from typing import Final, NamedTuple


class Attack(NamedTuple):
    """One attack; ``passes`` marks what must get through, ``gap`` what no version stops yet."""

    id: str
    row: int
    name: str
    technique: str
    is_secret: bool = False
    passes: bool = False
    is_proxied: bool = False
    gap: str = ""


def _proxied(name: str, row: int, attack: str, technique: str) -> Attack:
    return Attack(name, row, attack, technique, is_proxied=True)


def _secret(name: str, row: int, attack: str, technique: str, gap: str = "") -> Attack:
    return Attack(name, row, attack, technique, is_secret=True, is_proxied=True, gap=gap)


_SOCKETS: Final = "Unsetting the proxy variables, own sockets"
_UNIX: Final = "Unix sockets: D-Bus, docker.sock, ssh-agent"
_DAEMON: Final = "The agent turns on the daemon"
_SKIPPED: Final = "A secret in a part that a scanner skips"
_RULES: Final = "The agent edits what rules it"

CATALOGUE: Final[tuple[Attack, ...]] = (
    Attack("control", 0, "What is allowed", "a request to an allowed host passes",
           passes=True, is_proxied=True),
    _proxied("fronting-host", 1, "Domain fronting",
             "CONNECT and SNI name an allowed host, Host another"),
    _proxied("fronting-sni", 1, "Domain fronting", "SNI names another host"),
    _proxied("two-authorities", 1, "Domain fronting", "absolute form with another Host"),
    _proxied("no-sni", 3, "No SNI", "TLS without a server name, and another host in Host"),
    _proxied("raw-address", 3, "CONNECT to a raw address", "the host's loopback, IPv4 and IPv6"),
    Attack("udp-quic", 4, "QUIC and HTTP/3", "a datagram to port 443"),
    _proxied("rebinding", 5, "DNS rebinding", "an allowed name that resolves to loopback"),
    _proxied("metadata", 7, "Metadata services",
             "their addresses, as CONNECT and in absolute form"),
    _proxied("metadata-name", 7, "Metadata services", "their names"),
    _proxied("address-forms", 8, "An address in another form",
             "decimal, hexadecimal, octal and short"),
    _proxied("embedded-address", 8, "An IPv4 address inside an IPv6 one",
             "mapped, compatible, NAT64, 6to4"),
    _proxied("forbidden-host", 9, "A blocked name in another spelling", "case, final dot, NUL"),
    _proxied("look-alikes", 9, "A name that looks like an allowed one",
             "in front of it and behind it"),
    _proxied("socks", 9, "SOCKS, where names are spelled past the HTTP parser",
             "a name that is not allowed, and loopback"),
    _proxied("two-parsers", 10, "Backslash and fragment confuse URL parsers",
             "two hosts in one URL"),
    _proxied("user-information", 10, "User information hides the host",
             "an allowed host as user of another"),
    _proxied("other-ports", 11, "Other ports of an allowed host", "8443, 22 and 25"),
    _proxied("absolute-form", 12, "Plain HTTP past a check of CONNECT only",
             "a host that is not allowed"),
    _proxied("relayed-connect", 12, "A relayed CONNECT", "a tunnel inside a tunnel"),
    Attack("tcp-loopback", 13, _SOCKETS, "TCP to the host's loopback"),
    Attack("tcp-other-ports", 13, _SOCKETS, "TCP to other ports of it, well-known ones too"),
    Attack("tcp-ipv6", 13, _SOCKETS, "TCP over IPv6"),
    Attack("udp", 13, _SOCKETS, "a datagram"),
    Attack("raw-socket", 13, _SOCKETS, "a raw socket"),
    Attack("packet-socket", 13, _SOCKETS, "a packet socket"),
    Attack("netlink", 13, _SOCKETS, "the host's sockets listed by netlink"),
    Attack("vsock", 13, _SOCKETS, "a socket between virtual machines"),
    _proxied("raw-bytes", 13, _SOCKETS, "neither TLS nor HTTP, in a tunnel to an allowed host"),
    Attack("leaked-descriptor", 13, _SOCKETS, "a connected descriptor that was left open"),
    Attack("dns-canary", 14, "DNS tunnelling",
           "data in a label, to a resolver of the agent's choice"),
    Attack("dns-canary-53", 14, "DNS tunnelling", "the same on port 53"),
    Attack("dns-refused-name", 14, "DNS tunnelling",
           "data in a label of a name that is not allowed"),
    Attack("dns-refused-type", 14, "DNS tunnelling", "records made for data: TXT"),
    _secret("secret-percent", 15, "A secret in another encoding", "percent-encoded in the target"),
    _secret("secret-base64", 15, "A secret in another encoding", "base64"),
    _secret("secret-hex", 15, "A secret in another encoding", "hexadecimal"),
    _secret("secret-escapes", 15, "A secret in another encoding", "escapes of JSON"),
    _secret("secret-gzip", 16, "A secret in a compressed body", "gzip"),
    _secret("secret-unreadable", 16, "A body that cannot be read", "an unknown Content-Encoding"),
    _secret("secret-chunks", 17, "A secret split within a request", "over chunks"),
    _secret("secret-writes", 17, "A secret split within a request", "over writes"),
    _secret("secret-extension", 18, "Data in chunk extensions", "a secret"),
    _secret("secret-trailer", 18, "A secret in request trailers", "a field after the body"),
    _secret("secret-url", 19, _SKIPPED, "a parameter of the URL"),
    _secret("secret-header", 19, _SKIPPED, "a header field"),
    _secret("secret-body", 19, _SKIPPED, "the body"),
    _secret("secret-method", 19, _SKIPPED, "the method"),
    _secret("secret-part", 19, _SKIPPED, "a part of a form, encoded"),
    _proxied("two-framings", 20, "Request smuggling: two framings",
             "a length and chunks, two lengths"),
    _proxied("hidden-coding", 20, "Request smuggling: a coding that only one side sees",
             "four spellings of Transfer-Encoding"),
    _proxied("chunk-framing", 20, "Request smuggling: chunk framing", "sizes that are none"),
    _proxied("line-ends", 20, "Request smuggling: where a line ends",
             "bare LF and CR, folding, NUL"),
    _proxied("loop", 21, "A request to the proxy itself", "CONNECT to its own address"),
    Attack("proc-environ", 25, "Secrets through /proc", "the environment of a process outside"),
    Attack("unix-path", 26, _UNIX, "a socket outside, by its path"),
    Attack("unix-abstract", 26, _UNIX, "an abstract socket outside"),
    Attack("unix-datagrams", 26, _UNIX, "a datagram from one end of a pair"),
    Attack("known-sockets", 26, _UNIX, "those that are there"),
    Attack("io-uring", 27, "Ways around a path check", "io_uring"),
    Attack("odd-calls", 27, "Ways around a path check", "bpf and userfaultfd"),
    Attack("signal", 28, _DAEMON, "a signal to a process outside"),
    Attack("ptrace", 28, _DAEMON, "ptrace of a process outside"),
    Attack("stolen-descriptor", 28, _DAEMON, "a connected socket taken out of a process outside"),
    Attack("other-network", 28, _DAEMON, "the network namespace of a process outside"),
    Attack("own-namespaces", 28, _DAEMON, "a user namespace of its own"),
    Attack("mount", 28, _DAEMON, "a mount"),
    Attack("privileges", 28, _DAEMON, "capabilities, set-user-id programs"),
    Attack("write-policy", 29, _RULES, "writes the policy"),
    Attack("read-ca-key", 29, _RULES, "reads the key of the host CA"),
)  # fmt: skip
"""What the agent of a ``run`` tries."""

CAPTURED: Final[tuple[Attack, ...]] = (
    Attack("captured-control", 0, "What is allowed", "a request to an allowed host, captured",
           passes=True, is_proxied=True),
    _proxied("captured-other-host", 1, "Domain fronting",
             "captured: TLS names an allowed host, Host another"),
    _proxied("captured-other-name", 13, _SOCKETS,
             "captured: TLS to a host that is not allowed"),
    _proxied("captured-no-name", 3, "No SNI",
             "captured: TLS without a server name"),
    _proxied("captured-plain", 12, "Plain HTTP past a check of CONNECT only",
             "captured: HTTP to a host that is not allowed"),
    Attack("captured-raw", 13, _SOCKETS,
             "captured: neither TLS nor HTTP, to a port of no service"),
    Attack("captured-ipv6", 13, _SOCKETS,
             "captured: IPv6, and an IPv4 address inside one"),
    Attack("captured-device", 13, _SOCKETS,
             "captured: a socket bound to the device that leads out"),
    Attack("captured-udp", 13, _SOCKETS,
             "captured: datagrams"),
    Attack("captured-quic", 4, "QUIC and HTTP/3",
             "captured: QUIC"),
    Attack("captured-dns", 14, "DNS tunnelling",
             "captured: a resolver of its own choice, UDP and TCP"),
)  # fmt: skip
"""What a captured user tries besides, past whom nothing stands but packet rules."""

UNWALLED: Final = frozenset({
    "netlink", "vsock", "leaked-descriptor", "unix-path", "unix-abstract", "unix-datagrams",
    "known-sockets", "io-uring", "odd-calls", "own-namespaces", "mount", "privileges",
})  # fmt: skip
"""What only the walls of ``run`` stop: capture takes connections and nothing else."""

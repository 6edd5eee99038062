"""Through a corporate proxy: who goes by it, what it is told, and what its refusals become."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from corporate_lab import Corporate
from egress_lab import POLICY, Proxy
from entries import Peer, take
from h2_client import H2Client

from aesp_proxy.daemon.config_upstream import Upstream
from aesp_proxy.daemon.reaching import way_out
from aesp_proxy.errors import ConfigError
from aesp_proxy.intercept.egress.dialler import StaticAddress

GET = b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
SECRET = "c0rporate pässword:%41"
TOKEN = base64.b64encode(f"alice:{SECRET}".encode())


@pytest.fixture
def led(start: Callable[..., Proxy]) -> Iterator[Callable[..., tuple[Proxy, Corporate]]]:
    """Start a proxy, its names unknown here, and a corporate proxy that knows them."""
    running: list[Corporate] = []

    def begin(policy: str = POLICY, *, user: str = "", **options: object):
        places: dict[str, int] = {}
        settings = {k: options.pop(k) for k in ("excepted", "file") if k in options}
        connect_s_max = options.pop("connect_s_max", 10.0)
        corporate = Corporate(places, **options)
        running.append(corporate)
        upstream = Upstream(
            proxy=f"http://{user}127.0.0.1:{corporate.port}",
            proxy_except=settings.get("excepted", ""),
            proxy_credentials_file=settings.get("file"),
        )
        proxy = start(
            policy, corporate=way_out(upstream), connect_s_max=connect_s_max, silence_s=0.05
        )
        proxy.interceptor._settings.static.clear()
        places |= {
            "allowed.test:443": proxy.origin.tls_port,
            "other.test:443": proxy.origin.tls_port,
            "plain.test:80": proxy.origin.plain_port,
        }
        corporate.places = places
        return proxy, corporate

    try:
        yield begin
    finally:
        for corporate in running:
            corporate.stop()


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    file = tmp_path / "credentials"
    file.touch(mode=0o600)
    file.write_text(f"alice:{SECRET}\n")
    return file


def problem(answer: bytes) -> dict[str, str]:
    error: dict[str, str] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return error


def failure(proxy: Proxy) -> str:
    """Ask, and give the message of the 502."""
    answer = proxy.ask(GET)
    assert answer.startswith(b"HTTP/1.1 502 "), answer
    assert problem(answer)["reason"] == "upstream_failed"
    return problem(answer)["message"]


# what goes through it ---------------------------------------------------------------


def test_a_name_that_only_the_corporate_proxy_knows_is_reached_and_verified(led):
    proxy, corporate = led()
    assert proxy.ask(GET).endswith(b"0 bytes")
    assert corporate.asked == [
        b"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n"
    ]
    proxy.wait_for(
        lambda: any(
            r.upstream_address == f"127.0.0.1:{corporate.port}" for r in proxy.journal.records
        ),
        "the outcome names the address that was dialled",
    )
    # TLS is with the host, not with the corporate proxy: a certificate for another is refused.
    answer = proxy.ask(GET.replace(b"allowed", b"other"), "other.test")
    assert problem(answer)["reason"] == "upstream_untrusted"


def test_plain_http_and_http_2_go_through_it_too(led):
    proxy, corporate = led()
    with proxy.tunnel(alpn=("h2",)) as tls:
        assert H2Client(tls).ask("/x") == (200, b"0 bytes")
    sock, _ = proxy.connect("plain.test:80")
    with sock:
        sock.sendall(b"GET /x HTTP/1.1\r\nHost: plain.test\r\n\r\n")
        assert sock.recv(4_096).endswith(b"0 bytes")
    assert [head.split(b" ")[1] for head in corporate.asked] == [
        b"allowed.test:443",
        b"plain.test:80",
    ]


def test_a_server_that_speaks_first_is_heard_from_its_first_byte(led):
    proxy, corporate = led(POLICY.replace('"plain.test"', '"plain.test", "ssh.test:22"'))
    peer = Peer(first=b"SSH-2.0-x\r\n")
    corporate.places["ssh.test:22"] = peer.port
    try:
        sock, _ = proxy.connect("ssh.test:22")
        with sock:
            assert take(sock, 11) == b"SSH-2.0-x\r\n"
            sock.sendall(b"abc")
            proxy.wait_for(lambda: peer.received == [b"abc"], "the bytes of the client")
    finally:
        corporate.stop()
        peer.stop()


def test_interim_answers_and_fields_of_the_corporate_proxy_are_read_over(led):
    answer = b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.0 200 OK\r\nVia: x\r\nContent-Length: 5\r\n\r\n"
    proxy, _ = led(answer=answer)
    assert proxy.ask(GET).endswith(b"0 bytes")


# what is dialled directly -----------------------------------------------------------


@pytest.mark.parametrize("excepted", ["allowed.test", "*.test", "allowed.test:443"])
def test_excepted_hosts_are_resolved_checked_and_dialled_directly(led, excepted):
    proxy, corporate = led(excepted=excepted)
    assert "cannot resolve allowed.test" in failure(proxy)
    assert corporate.asked == []


def test_static_addresses_are_dialled_directly(led):
    proxy, corporate = led()
    proxy.interceptor._settings.static["allowed.test", None] = StaticAddress(
        address="127.0.0.1", port=proxy.origin.tls_port
    )
    assert proxy.ask(GET).endswith(b"0 bytes")
    assert corporate.asked == []


def test_an_address_goes_through_it_unless_its_network_is_excepted(led):
    policy = POLICY.replace('"plain.test"', '"10.0.0.0/8", "10.1.0.0/16"')
    proxy, corporate = led(policy, excepted="10.1.0.0/16", connect_s_max=0.2)
    for address in (b"10.2.0.1", b"10.1.0.1"):
        sock, _ = proxy.connect(f"{address.decode()}:80")
        with sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % address)
            assert sock.recv(4_096).startswith(b"HTTP/1.1 502 ")
    assert [head.split(b" ")[1] for head in corporate.asked] == [b"10.2.0.1:80"]


def test_loopback_is_this_machines_own_and_never_the_corporate_proxys(led):
    policy = POLICY.replace('"plain.test"', '"127.0.0.0/8:1-65535"').replace(":1-65535", ":*")
    proxy, corporate = led(policy)
    port = proxy.origin.plain_port
    sock, _ = proxy.connect(f"127.0.0.1:{port}")
    with sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
        assert sock.recv(4_096).endswith(b"0 bytes")
    assert corporate.asked == []


# the policy still holds -------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.test", "169.254.169.254", "10.0.0.1", "unknown.test"])
def test_what_the_policy_refuses_never_reaches_the_corporate_proxy(led, host):
    proxy, corporate = led()
    sock, answer = proxy.connect(f"{host}:443")
    sock.close()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert corporate.asked == []


def test_an_address_that_the_policy_does_not_name_is_refused_even_where_all_is_allowed(led):
    policy = POLICY.replace("default_action: block", "default_action: allow")
    proxy, corporate = led(policy)
    for address in (b"169.254.169.254", b"10.0.0.1", b"100.64.0.1"):
        sock, answer = proxy.connect(f"{address.decode()}:80")
        with sock:
            if answer.startswith(b"HTTP/1.1 200"):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % address)
                answer = sock.recv(4_096)
            assert answer.startswith(b"HTTP/1.1 403 ")
    assert corporate.asked == []


# credentials ------------------------------------------------------------------------


def test_credentials_of_a_file_are_sent_and_stand_nowhere_else(led, credentials, caplog, capfd):
    proxy, corporate = led(authorization=TOKEN, file=credentials)
    assert proxy.ask(GET).endswith(b"0 bytes")
    assert b"\r\nProxy-Authorization: Basic " + TOKEN + b"\r\n" in corporate.asked[0]
    told = repr(proxy.journal.records) + caplog.text + "".join(capfd.readouterr())
    told += repr(proxy.interceptor._settings) + repr(proxy.origin.requests)
    for secret in (SECRET, TOKEN.decode(), "Proxy-Authorization"):
        assert secret not in told


def test_credentials_of_the_url_are_decoded_and_sent(led):
    proxy, corporate = led(authorization=TOKEN, user="alice:c0rporate%20p%C3%A4ssword%3A%2541@")
    assert proxy.ask(GET).endswith(b"0 bytes")
    assert len(corporate.asked) == 1


def test_credentials_that_an_agent_sends_do_not_reach_the_corporate_proxy(led):
    proxy, corporate = led()
    request = GET.replace(b"\r\n\r\n", b"\r\nProxy-Authorization: Basic YTpi\r\n\r\n")
    proxy.ask(request)
    assert b"YTpi" not in b"".join(corporate.asked)
    assert all(b"YTpi" not in seen.head for seen in proxy.origin.requests)


def test_missing_and_wrong_credentials_are_told_apart(led, tmp_path):
    proxy, _ = led(authorization=TOKEN)
    assert failure(proxy) == "the corporate proxy wants credentials (407)"
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("bob:guess")
    proxy, _ = led(authorization=TOKEN, file=wrong)
    assert failure(proxy) == "the corporate proxy does not take the credentials (407)"


@pytest.mark.parametrize(
    ("offers", "names"),
    [
        (b"NTLM", "NTLM"),
        (b"Negotiate\r\nProxy-Authenticate: NTLM", "NTLM or Negotiate"),
        (b"Kerberos, Negotiate", "Negotiate or Kerberos"),
        (b'Digest realm="x", nonce="y"', "Digest"),
    ],
)
def test_a_login_that_is_not_spoken_here_is_told_with_what_to_do(led, offers, names):
    answer = b"HTTP/1.1 407 No\r\nProxy-Authenticate: %b\r\nContent-Length: 0\r\n\r\n" % offers
    proxy, _ = led(answer=answer)
    message = failure(proxy)
    assert message.startswith(f"the corporate proxy wants {names}, which is not spoken here (407)")
    assert "cntlm" in message


def test_a_proxy_that_takes_ntlm_or_basic_is_given_basic(led, tmp_path):
    answer = b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nproxy-authenticate: Basic\r\n\r\n"
    proxy, _ = led(answer=answer)
    assert failure(proxy) == "the corporate proxy wants credentials (407)"


# its refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (b"403 Forbidden", "forbids CONNECT to allowed.test:443 (403)"),
        (b"502 Bad Gateway", "cannot reach allowed.test:443 (502)"),
        (b"504 Gateway Timeout", "cannot reach allowed.test:443 (504)"),
        (b"302 Found", "answered CONNECT to allowed.test:443 with 302"),
        (b"OK", "did not answer in HTTP/1"),
    ],
)
def test_refusals_of_the_corporate_proxy_are_failed_upstreams_with_its_status(led, status, says):
    proxy, _ = led(answer=b"HTTP/1.1 " + status + b"\r\nContent-Length: 6\r\n\r\nhidden")
    message = failure(proxy)
    assert message == f"the corporate proxy {says}"
    assert proxy.origin.requests == []


def test_what_does_not_speak_http_or_says_too_much_is_a_failed_upstream(led):
    for answer in (b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5_000):
        proxy, _ = led(answer=answer)
        assert "the corporate proxy" in failure(proxy)


def test_a_corporate_proxy_that_is_silent_is_given_up_after_the_connect_timeout(led):
    proxy, _ = led(is_silent=True, connect_s_max=0.3)
    assert failure(proxy) == "cannot connect to the corporate proxy: timed out"


def test_a_corporate_proxy_that_is_down_is_a_failed_upstream(led):
    proxy, corporate = led()
    corporate.stop()
    assert "cannot connect to the corporate proxy: " in failure(proxy)


# settings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "socks4://proxy.test:1080",
        "socks://proxy.test:1080",
        "https://proxy.test",
        "http://proxy.test",
        "http://proxy.test:3128/path",
        "http://:3128",
        "http://proxy.test:99999",
        "http://a b:3128",
        "proxy.test:3128",
        "http://alice:hunter2@proxy.test:0",
    ],
)
def test_a_url_that_is_none_is_a_configuration_error_that_does_not_show_it(url):
    with pytest.raises(ConfigError) as caught:
        way_out(Upstream(proxy=url))
    assert "hunter2" not in str(caught.value)
    assert "proxy" in str(caught.value)


def test_credentials_that_others_may_read_are_a_configuration_error(credentials):
    credentials.chmod(0o644)
    upstream = Upstream(proxy="http://proxy.test:3128", proxy_credentials_file=credentials)
    with pytest.raises(ConfigError, match="others may read it"):
        way_out(upstream)


@pytest.mark.parametrize("content", [b"", b"alice", b":x", b"a:b\nc:d\n", b"a:\xff"])
def test_credentials_that_are_none_are_a_configuration_error(credentials, content):
    credentials.write_bytes(content)
    upstream = Upstream(proxy="http://proxy.test:3128", proxy_credentials_file=credentials)
    with pytest.raises(ConfigError) as caught:
        way_out(upstream)
    assert "b\n" not in str(caught.value)


def test_the_settings_do_not_show_the_url_of_the_corporate_proxy():
    upstream = Upstream(proxy="http://alice:hunter2@proxy.test:3128")
    assert "hunter2" not in repr(upstream)
    with contextlib.suppress(ConfigError):
        assert "hunter2" not in repr(way_out(upstream))

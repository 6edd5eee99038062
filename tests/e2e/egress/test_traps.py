"""mitmproxy's traps, each with the test that proves it closed here; a few are proved here.

What was measured of mitmproxy 12.2.3 on its own stands on the left: it forwards, hangs, crashes
or keeps. A version that behaves otherwise changes nothing here: the tests are of this proxy.
"""

from __future__ import annotations

import ast
import socket
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
HTTP1, BAD = "test_http1", "test_bad_input"
TRAPS = {
    "a refusal waits for the whole body": (HTTP1, "test_a_refusal_does_not_invite_the_body"),
    "a refusal crashes a body that streams": (
        HTTP1, "test_a_secret_inside_a_20_mb_upload_stops_it_before_a_byte_of_it_leaves",
    ),
    "100 is answered by the proxy, denied or not": (
        HTTP1, "test_expect_100_continue_is_answered_by_the_origin_not_by_us",
    ),
    "trailers of a request crash": (HTTP1, "test_large_bodies_arrive_whole_both_framings"),
    "trailers of an answer crash or cut it": (
        HTTP1, "test_interim_responses_and_trailers_pass_and_alt_svc_does_not",
    ),
    "trailers are lost over HTTP/2": (
        "test_http2_upstream", "test_trailers_of_a_request_reach_a_host_that_speaks_http_1",
    ),
    "103 is taken for the answer": ("test_http2_upstream", "test_interim_responses_pass"),
    "a head has no limit": (BAD, "test_a_request_line_of_1_mb_is_refused"),
    "a head has no time limit": (BAD, "test_a_slow_head_is_cut_while_others_are_served"),
    "a body has no time limit": (
        "test_slow_and_broken", "test_a_client_that_stops_in_its_body_is_cut_and_recorded",
    ),
    "bytes that are not HTTP are relayed": (
        "test_raw_tcp", "test_bytes_on_a_web_port_are_never_relayed_unread",
    ),
    "an unknown Upgrade becomes a raw relay": (
        "test_traps", "test_an_upgrade_to_what_is_not_known_is_an_ordinary_request",
    ),
    "Upgrade: h2c is forwarded": (
        "test_real_peers",
        "test_curl_that_offers_http_2_over_cleartext_is_served_over_http_1",
    ),
    "Host, SNI and CONNECT may differ": (
        HTTP1, "test_names_that_disagree_are_refused_and_all_three_recorded",
    ),
    "two Hosts, NUL, folds and bare LF are forwarded": (
        BAD, "test_an_ambiguous_head_is_a_400_and_nothing_is_forwarded",
    ),
    "an early answer hangs": (HTTP1, "test_an_early_answer_reaches_the_client"),
    "a half-closed client is aborted": (
        "test_slow_and_broken", "test_a_client_that_half_closes_after_its_request_is_answered",
    ),
    "a cut answer looks whole": (
        HTTP1, "test_an_answer_that_is_cut_off_is_not_made_to_look_whole",
    ),
    "WebSocket messages are kept for ever": (
        "test_slow_takers", "test_websocket_messages_are_not_kept",
    ),
    "compressed answers are taken apart": (
        "test_real_peers", "test_a_compressed_answer_reaches_the_client_byte_for_byte",
    ),
    "a client that pins leaves only a log line": (
        "test_upstream_tls",
        "test_an_agent_of_an_older_version_than_the_operator_wants_gets_no_handshake",
    ),
    "an upstream certificate that is wrong": (
        "test_slow_and_broken",
        "test_a_certificate_that_does_not_convince_is_refused_and_says_why",
    ),
    "upstream is connected before the decision": (
        HTTP1, "test_a_small_leak_does_not_even_open_an_upstream_connection",
    ),
    "connections have no limit": (
        BAD, "test_connections_over_the_limit_are_refused_and_the_others_live",
    ),
    "an add-on's exception forwards": (
        "test_nets", "test_net_4_an_interceptor_that_raises_cuts_the_connection",
    ),
    "HTTP/2 takes in all that a fast sender has": (
        "test_slow_takers", "test_an_answer_that_is_not_taken_waits_at_its_origin",
    ),
    "an upstream that was down is down for the whole connection": (
        "test_slow_takers",
        "test_the_next_request_of_a_connection_tries_an_upstream_again_that_was_down",
    ),
    "broken HTTP/2 is only logged": (
        "test_damaged_http2", "test_what_breaks_http_2_is_told_so_cut_and_recorded",
    ),
    "Alt-Svc leads to QUIC": (
        "test_http2_upstream", "test_alternative_services_are_taken_out",
    ),
    "IPv6 in CONNECT": (
        "test_ipv6", "test_an_ipv6_address_is_connected_to_where_an_entry_names_it",
    ),
    "HTTP/1.0": (HTTP1, "test_http_1_0_and_bodies_until_close_work"),
    "pipelining": (
        HTTP1, "test_connections_are_kept_and_pipelined_requests_answered_in_order",
    ),
    "client certificates": (
        "test_upstream_tls",
        "test_a_host_is_shown_the_certificate_that_the_settings_name_for_it",
    ),
    "sockets wait 44 ms for more (Nagle)": (
        "test_traps", "test_sockets_of_both_sides_send_at_once",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("module", "test"), TRAPS.values(), ids=TRAPS)
def test_the_test_that_proves_a_trap_closed_is_there(module: str, test: str) -> None:
    tree = ast.parse((FOLDER / f"{module}.py").read_bytes())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_an_upgrade_to_what_is_not_known_is_an_ordinary_request(proxy):
    request = (
        b"GET /x HTTP/1.1\r\nHost: allowed.test\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"
    )
    assert proxy.ask(request).endswith(b"0 bytes")
    assert b"upgrade" not in proxy.origin.requests[0].head.lower()


def test_sockets_of_both_sides_send_at_once(proxy):
    with proxy.tunnel() as tls:
        tls.sendall(b"GET /x HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
        tls.recv(65_536)
        (conversation,) = proxy.interceptor._conversations
        wires = list(conversation._wires.values())
        assert len(wires) == 2
        for wire in wires:
            sock = wire.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

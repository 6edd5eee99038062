"""The fuzz targets of policy and hosts, for a short while and from useful seeds."""

from __future__ import annotations

from pathlib import Path

from fuzz_targets import load_target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from policy_documents import DOCUMENTS

_BASELINE = (Path(__file__).parents[3] / "policies" / "baseline.yaml").read_bytes()
_WORDS = st.sampled_from(
    [
        b'version: "1.2.0"\n',
        b"guards:\n", b"  egress_allowlist:\n", b"    allow: ", b"    block: ",
        b"  forbidden_path:\n", b"    patterns: ", b"  mcp_tool:\n", b"    default_action: log\n",
        b"    exceptions: ", b"    enabled: ", b"true\n", b"null\n", b"['**/a{b,c}/[!x]*?']\n",
        b"['*.a.example:*', 10.0.0.0/8]\n", b"[]\n", b"{}\n", b"&a ", b"*a\n", b"<<: ", b"\t",
        b"- ", b"'", b'"', b"\xff", b"\x00", b"[", b"{", b"xn--", b"0x7f.1", b"::1", b"\\", b"!!x ",
    ]
)  # fmt: skip

fuzz_policy = load_target("fuzz_policy").fuzz_one
fuzz_host = load_target("fuzz_host").fuzz_one


@settings(max_examples=300)
@given(st.lists(_WORDS, max_size=14).map(b"".join))
def test_text_made_of_policy_words_is_a_policy_or_an_error_of_ours(data: bytes) -> None:
    fuzz_policy(data)


@settings(max_examples=60)
@given(st.integers(0, len(_BASELINE)), st.binary(max_size=3), st.integers(0, 40))
def test_a_damaged_baseline_is_a_policy_or_an_error_of_ours(
    at: int, piece: bytes, cut: int
) -> None:
    fuzz_policy(_BASELINE[:at] + piece + _BASELINE[at + cut :])


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_host_or_an_input_error(data: bytes) -> None:
    fuzz_host(data)
    fuzz_policy(data)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(DOCUMENTS, DOCUMENTS, st.integers(0, 200), st.sampled_from(["", "", "]", '"', "9", "**"]))
def test_a_level_below_another_is_stricter_or_an_error_of_ours(
    top: str, low: str, at: int, piece: str
) -> None:
    fuzz_policy(f"{top}\n---\n{low[:at]}{piece}{low[at:]}".encode())

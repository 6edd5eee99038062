"""One spelling of a path for the rules, or none where the next server may see another."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.url_path import url_path


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ("/admin", "/admin"),
        ("/%61dmin", "/admin"),
        ("//admin", "/admin"),
        ("/x/../admin", "/admin"),
        ("/x/%2e%2E/admin", "/admin"),
        ("/a/./b/", "/a/b/"),
        ("/../../etc", "/etc"),
        ("/a%2fb", "/a%2Fb"),
        ("/%e2%82%ac", "/%E2%82%AC"),
        ("/100%", "/100%"),
        ("/%zz/%4", "/%zz/%4"),
        ("/", "/"),
        ("*", "*"),
    ],
)
def test_what_servers_take_for_one_path_is_one_path(raw, seen):
    assert url_path(raw) == seen


@pytest.mark.parametrize(
    "raw",
    [
        "/x/..%2fadmin",
        "/x/..%5Cadmin",
        "/x/%252e%252e/admin",
        "/x%5c..%5cadmin",
        "/..;/admin",
        "/x/..;v=1/admin",
        "/open/..\\admin",
        "/%2525252525252541",
    ],
)
def test_a_path_that_two_servers_read_differently_is_unknown(raw):
    assert url_path(raw) is None


@given(st.text(alphabet="ab/.%2eEfF5cC;\\", max_size=24).map(lambda tail: "/" + tail))
def test_the_one_spelling_has_itself_as_its_one_spelling(raw):
    seen = url_path(raw)
    if seen is not None:
        assert url_path(seen) in (seen, None)
        assert "/../" not in seen
        assert "//" not in seen


@given(st.text(max_size=12))
def test_encoding_what_needs_none_changes_nothing(name):
    plain = quote(name, safe="")
    loud = "".join(f"%{byte:02x}" for byte in name.encode("utf-8", "surrogatepass"))
    if "%2F" not in plain and name not in (".", ".."):
        assert url_path("/" + loud) == url_path("/" + plain)

"""Tokens as texts and as rows, without a server."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.aggregator.admission import Wanted, make_token
from aesp_proxy.aggregator.identity import prepare
from aesp_proxy.aggregator.store.control import VERSION, Control, SqliteControl
from aesp_proxy.aggregator.store.tokens import TOKENS_SCHEMA, TokenRefusedError, TokenTerms
from aesp_proxy.errors import ConfigError, InputError
from aesp_proxy.record.enrolment import TOKEN_PREFIX, EnrolmentRequest, Token

NOW = datetime(2026, 11, 1, tzinfo=UTC)
TERMS = TokenTerms(fingerprint=b"f" * 32, made_ns=1, expires_ns=100, origin="h-a")


def use(control: Control, **changes: object) -> bytes:
    values = {"origin": "h-a", "request": b"r", "now_ns": 50, "admit": lambda _: b"cert"} | changes
    return control.tokens.use(TERMS.fingerprint, **values)  # type: ignore[arg-type]


def test_a_token_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    token = make_token(prepare(tmp_path / "data", now=NOW), Wanted(), now=NOW)
    text = token.text()
    assert Token.parse(f" {text}\n") == token
    assert token.expires == NOW + timedelta(hours=1)
    for wrong in (text[:-2], text[:90], "x" + text, text + "é", text.replace("-", "_", 1)):
        with pytest.raises(InputError, match="no enrolment token"):
            Token.parse(wrong)


def test_the_store_has_no_part_of_the_secret(tmp_path: Path) -> None:
    data = prepare(tmp_path / "data", now=NOW)
    token = make_token(data, Wanted(), now=NOW)
    for path in data.root.rglob("*"):
        assert path.is_dir() or token.scalar not in path.read_bytes()


@given(st.text() | st.binary().map(lambda data: TOKEN_PREFIX + data.hex()))
def test_any_text_is_a_token_or_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        Token.parse(text)


@given(st.binary() | st.just(b'{"origin":1,"csr":"","certificate":"","public_key":"","proof":""}'))
def test_any_bytes_are_a_request_or_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        EnrolmentRequest.decode(data)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(origin="../x"),
        Wanted(expires=timedelta(0)),
        Wanted(expires=timedelta(days=31)),
        Wanted(tenants=("",)),
        Wanted(labels={"a": "x" * 300}),
        Wanted(labels={str(n): "v" for n in range(33)}),
    ],
    ids=["origin", "no-time", "too-long", "tenant", "label", "labels"],
)
def test_what_cannot_be_wanted_is_refused(tmp_path: Path, wanted: Wanted) -> None:
    with pytest.raises(ConfigError):
        make_token(prepare(tmp_path / "data", now=NOW), wanted, now=NOW)


def test_a_used_token_answers_only_the_request_that_used_it(control: Control) -> None:
    control.tokens.add(TERMS)
    assert use(control) == b"cert"
    assert use(control, admit=lambda _: b"other") == b"cert"
    for change in ({"request": b"s"}, {"origin": "h-b"}):
        with pytest.raises(TokenRefusedError, match="used"):
            use(control, **change)


def test_a_token_ends_at_its_time_and_is_for_its_origin(control: Control) -> None:
    control.tokens.add(TERMS)
    with pytest.raises(TokenRefusedError, match="expired"):
        use(control, now_ns=100)
    with pytest.raises(TokenRefusedError, match="another origin"):
        use(control, origin="h-b")
    assert use(control, now_ns=99) == b"cert"


def test_a_token_whose_host_was_not_let_in_is_as_it_was(control: Control) -> None:
    control.tokens.add(TERMS)

    def fail(_: TokenTerms) -> bytes:
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        use(control, admit=fail)
    assert control.tokens.all()[0].used_ns is None
    assert use(control) == b"cert"


def test_a_store_of_the_layout_before_is_brought_up_and_keeps_what_it_holds(
    tmp_path: Path,
) -> None:
    path = tmp_path / "control.sqlite"
    SqliteControl(path).close()
    with sqlite3.connect(path) as connection:
        connection.executescript("DROP TABLE tokens; DROP TABLE origin_labels;")
        connection.execute("INSERT INTO refusals VALUES ('h', 'gap', 3, 1, 2)")
        connection.execute("PRAGMA user_version=1")
    connection.close()
    opened = SqliteControl(path)
    opened.tokens.add(TERMS)
    assert opened.refusals("h")[0].count == 3
    assert opened._database.rows("PRAGMA user_version")[0][0] == VERSION
    opened.close()
    assert TOKENS_SCHEMA.count("CREATE TABLE") == 2

"""No byte of a batch can be changed, cut or added without being refused."""

from __future__ import annotations

from typing import Any

import pytest
from fuzz_targets import load_target
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.aggregator.ingest import Accept, IngestLimits, Refuse, judge
from aesp_proxy.aggregator.ports import Identity, Role

TARGET = load_target("fuzz_ingest")


def judged(data: bytes) -> Any:
    return judge(
        data,
        identity=Identity(role=Role.HOST, name=TARGET.ORIGIN),
        standing=TARGET.Standing(),
        limits=IngestLimits(),
        now_ns=TARGET.NOW_NS,
    )


def test_the_batch_itself_is_accepted() -> None:
    assert isinstance(judged(TARGET.whole()), Accept)


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_no_byte_can_be_changed(change: int) -> None:
    whole = TARGET.whole()
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= change
        assert isinstance(judged(bytes(data)), Refuse), at


def test_no_byte_can_be_cut_or_added() -> None:
    whole = TARGET.whole()
    for size in range(len(whole)):
        assert isinstance(judged(whole[:size]), Refuse), size
    assert isinstance(judged(whole + b"\x00"), Refuse)


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from([b"\x00", b"\x01", b"\x02"]), data=st.binary(max_size=400))
def test_whatever_is_posted_or_asked_is_answered(kind: bytes, data: bytes) -> None:
    TARGET.fuzz_one(kind + data)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["since", "until", "limit", "cursor", "agent", "verdict", "x"]),
            st.text(max_size=30),
        ),
        max_size=4,
    )
)
def test_any_parameters_are_a_query_or_an_input_error(pairs: list[tuple[str, str]]) -> None:
    from urllib.parse import urlencode

    TARGET.fuzz_one(b"\x02" + urlencode(pairs).encode())

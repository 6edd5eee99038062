"""The control protocol: frames arrive whole and in order, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.daemon import control
from aesp_proxy.daemon.control import Failed, FrameDecoder, Notice, Ready, from_worker
from aesp_proxy.errors import InputError

texts = st.text(max_size=30)
frames = st.dictionaries(
    texts, st.one_of(texts, st.integers(-(2**63), 2**63 - 1), st.booleans()), max_size=4
).map(lambda frame: {**frame, "type": "t"})


@given(st.lists(frames, max_size=5), st.lists(st.integers(0, 200), max_size=8))
def test_frames_survive_any_cut_of_the_stream(sent, cuts):
    stream = b"".join(control.encode_frame(frame) for frame in sent)
    decoder, received, begin = FrameDecoder(), [], 0
    for end in [*sorted(cuts), len(stream)]:
        received += decoder.feed(stream[begin:end])
        begin = max(begin, min(end, len(stream)))
    assert received == sent
    assert decoder.pending_bytes == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_an_input_error(data):
    decoder = FrameDecoder()
    try:
        received = decoder.feed(data)
    except InputError:
        return
    for frame in received:
        assert isinstance(frame["type"], str)


def test_a_frame_over_the_limit_is_refused_before_it_is_held():
    with pytest.raises(InputError, match="at most"):
        FrameDecoder().feed((control.FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(InputError, match="at most"):
        control.encode_frame({"type": "t", "x": "y" * control.FRAME_BYTES_MAX})


def test_a_frame_that_cannot_be_encoded_is_an_input_error():
    with pytest.raises(InputError, match="cannot encode"):
        control.encode_frame({"type": "t", "x": object()})


@pytest.mark.parametrize(
    ("frame", "means"),
    [
        (control.ready_frame(port=80, epoch=2), Ready(port=80, epoch=2)),
        (control.failed_frame(exit_code=3, message="m"), Failed(exit_code=3, message="m")),
        (control.notice_frame("n"), Notice(message="n")),
    ],
)
def test_what_a_worker_says_is_understood(frame, means):
    assert [from_worker(each) for each in FrameDecoder().feed(frame)] == [means]


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "stop", "grace_s": 1.0},
        {"type": "ready", "port": 0, "epoch": 1},
        {"type": "ready", "port": "80", "epoch": 1},
        {"type": "failed", "message": "m"},
        {"type": ""},
    ],
)
def test_what_no_worker_says_is_refused(frame):
    with pytest.raises(InputError):
        from_worker(frame)

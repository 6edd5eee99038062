"""What the process that keeps the packet rules says, and who reads it."""

from __future__ import annotations

import pytest

from aesp_proxy.daemon.service.rules_news import LineDecoder, RulesFailed, RulesNews
from aesp_proxy.errors import ConfigError, InputError, UnavailableError
from aesp_proxy.intercept.capture.keeper import News
from aesp_proxy.launch.capture import failure, frame


@pytest.mark.parametrize("event", ["installed", "found", "repaired", "changed", "mended"])
def test_news_are_read_as_they_were_told(event):
    data = frame(News(event=event, message="m", repairs=3))
    told = RulesNews(event=event, message="m", holds=True, repairs=3)
    assert LineDecoder().feed(data) == [told]


@pytest.mark.parametrize("event", ["broken", "released"])
def test_after_some_news_the_rules_do_not_stand(event):
    (told,) = LineDecoder().feed(frame(News(event=event, message="m")))
    assert isinstance(told, RulesNews)
    assert not told.holds


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("c", where="w", remedy="r"), 3), (UnavailableError("u"), 4)]
)
def test_an_end_says_why(error, code):
    assert LineDecoder().feed(failure(error)) == [RulesFailed(exit_code=code, message=str(error))]


def test_lines_are_read_however_they_are_cut():
    data = frame(News(event="found", message="a")) + frame(News(event="repaired", message="b"))
    decoder, told = LineDecoder(), []
    for byte in data:
        told += decoder.feed(bytes([byte]))
    assert [each.event for each in told if isinstance(each, RulesNews)] == ["found", "repaired"]


@pytest.mark.parametrize(
    "data",
    [b"x\n", b"[]\n", b"{}\n", b'{"type": "news"}\n', b"\xff\n", b"a" * 70_000,
     b'{"type": "failed", "exit_code": 0, "message": ""}\n'],
    ids=range(7),
)  # fmt: skip
def test_nonsense_is_refused(data):
    with pytest.raises(InputError):
        LineDecoder().feed(data)

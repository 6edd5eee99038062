"""Formats say all that a record says, in words their readers know, whatever stands in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Any

import jsonschema
import ocsf_json_schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.aggregator.export.event import ExportEvent
from aesp_proxy.aggregator.export.formats import FORMATS
from aesp_proxy.aggregator.export.formats.cef import cef_line
from aesp_proxy.aggregator.export.formats.cim import siem_event
from aesp_proxy.aggregator.export.formats.ecs import ecs_document
from aesp_proxy.aggregator.export.formats.ocsf import ocsf_event
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind

New = Callable[..., ExportEvent]
HOSTILE = [
    "a\nCEF:0|x|y|z|1|n|10|act=allow",
    "a\r\n<14>1 - - - - - - forged",
    "x act=allow outcome=SUCCESS",
    "back\\slash=|pipe| end\\",
    '"}\n{"create":{"_id":"forged"}}',
    "=cmd|' /C calc'!A0",
    "'; DROP TABLE events; --",
    "\x85\u2028\u2029\x00\x1b[2J\x7f",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
]
TEXTS = [
    field.name
    for field in fields(Record)
    if field.type == "str" and field.name not in {"action", "verdict"}
]


@cache
def validator(version: str, class_uid: int) -> jsonschema.Draft202012Validator:
    plain = ocsf_json_schema.OcsfJsonSchema(ocsf_json_schema.get_ocsf_schema(version))
    schema = ocsf_json_schema.OcsfJsonSchemaEmbedded(plain)
    name = schema.lookup_class_name_from_uid(class_uid)
    return jsonschema.Draft202012Validator(schema.get_class_schema(name, ["security_control"]))


def faults(shown: dict[str, Any], version: str) -> list[str]:
    return [
        f"{list(error.absolute_path)}: {error.message[:200]}"
        for error in validator(version, shown["class_uid"]).iter_errors(shown)
    ]


def test_every_ocsf_event_is_valid_in_the_published_schema(sort: Record, new_event: New):
    assert faults(json.loads(json.dumps(ocsf_event(new_event(sort)))), "1.5.0") == []


@pytest.mark.parametrize("action", ["http.get", "dns.query", "file.open", "tool.call"])
def test_an_ocsf_event_is_valid_in_a_later_schema(action: str, new_event: New):
    shown = ocsf_event(new_event(action=action, target_path="/x"))
    assert faults(json.loads(json.dumps(shown)), "1.8.0") == []


def test_the_schema_refuses_an_event_with_a_word_it_does_not_know(new_event: New):
    shown = ocsf_event(new_event()) | {"action_id": 12}
    assert not validator("1.5.0", 4002).is_valid(shown)


@pytest.mark.parametrize(
    ("action", "class_uid", "activity_id"),
    [
        ("http.get", 4002, 3),
        ("http.post", 4002, 6),
        ("http.patch", 4002, 99),
        ("tcp.connect", 4001, 1),
        ("dns.query", 4003, 1),
        ("file.open", 1001, 14),
        ("file.write", 1001, 3),
        ("file.exec", 1007, 1),
        ("tool.call", 6003, 99),
        ("policy.reload", 6003, 99),
    ],
)
def test_an_action_has_its_class(action: str, class_uid: int, activity_id: int, new_event: New):
    shown = ocsf_event(new_event(action=action, target_path="/x"))
    assert (shown["class_uid"], shown["activity_id"]) == (class_uid, activity_id)
    assert shown["type_uid"] == class_uid * 100 + activity_id


@pytest.mark.parametrize(
    ("verdict", "action_id", "cim", "ecs"),
    [
        ("allow", 1, "allowed", "allowed"),
        ("audit", 3, "allowed", "allowed"),
        ("redact", 4, "modified", "allowed"),
        ("ask", 2, "blocked", "denied"),
        ("deny", 2, "blocked", "denied"),
        ("a word of tomorrow", 0, "blocked", "denied"),
    ],
)
def test_a_verdict_is_said_in_each_vocabulary(
    verdict: str, action_id: int, cim: str, ecs: str, new_event: New
):
    event = new_event(verdict=verdict)
    assert ocsf_event(event)["action_id"] == action_id
    assert siem_event(event)["action"] == cim
    assert ecs_document(event)["event"]["type"][-1] == ecs


def test_a_siem_event_has_every_field_of_the_specification(new_event: New):
    asked = (
        "timestamp source event_type severity action outcome agent_id agent_type session_id"
        " target_type target_path target_host guard_name policy_name policy_version user team"
        " region raw_event"
    )
    shown = siem_event(new_event())
    assert set(asked.split()) <= shown.keys()
    assert 1 <= shown["severity"] <= 10
    assert shown["timestamp"] == "2027-01-15T08:00:00.123456789Z"


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_event_carries_its_place(name: str, sort: Record, new_event: New):
    shown = FORMATS[name](new_event(sort))
    if isinstance(shown, str):
        assert {"externalId=h-one/3/7", "cn1=7", "cn2=5"} <= set(shown.split(" "))
        return
    place = {
        "ocsf": shown.get("unmapped", {}),
        "cim": {"aesp": shown.get("raw_event")},
        "ecs": shown,
    }
    told = place[name]["aesp"]
    assert (told["id"], told["origin"], told["epoch"], told["seq"], told["batch"]) == (
        "h-one/3/7", "h-one", 3, 7, 5,
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"cef"}))
def test_all_that_a_record_says_is_in_the_event(name: str, new_event: New):
    record = replace(
        new_event().record,
        **{field: f"{field}-said" for field in TEXTS if field not in {"severity", "source_ip"}},
    )
    shown = json.dumps(FORMATS[name](new_event(record)))
    silent = {"severity", "source_ip"}
    assert [f for f in TEXTS if f not in silent and f"{f}-said" not in shown] == []
    assert "aws-access-key" in shown
    assert "AKIA****" in shown


def cef_fields(line: str) -> tuple[list[str], dict[str, str]]:
    """Read a line as the standard says: unescaped pipes, then unescaped equals signs."""
    header: list[str] = []
    part, at = "", 0
    while len(header) < 7:
        char = line[at]
        if char == "\\":
            part, at = part + line[at + 1], at + 2
        elif char == "|":
            header, part, at = [*header, part], "", at + 1
        else:
            part, at = part + char, at + 1
    values: dict[str, str] = {}
    key, text = "", ""
    while at < len(line):
        char = line[at]
        if char == "\\":
            text += {"n": "\n", "r": "\r"}.get(line[at + 1], line[at + 1])
            at += 1
        elif char == "=":
            before, _, name = text.rpartition(" ")
            if key:
                values[key] = before
            key, text = name, ""
        else:
            text += char
        at += 1
    values[key] = text
    return header, values


@pytest.mark.parametrize("text", HOSTILE)
def test_no_value_leaves_its_field_in_cef(text: str, new_event: New):
    for field in TEXTS:
        honest = cef_fields(cef_line(new_event(**{field: "word"})))
        line = cef_line(new_event(**{field: text}))
        assert not any(char in line for char in "\n\r\x85\u2028\u2029\x00\x1b")
        header, values = cef_fields(line)
        assert len(header) == 7
        assert values.keys() <= honest[1].keys(), field
        assert header[:4] == ["CEF:0", "AESP", "AESP Proxy", honest[0][3]]
        assert values["externalId"] == "h-one/3/7"
        assert values["act"] == "deny"


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"cef"}))
def test_no_value_leaves_its_field_in_json(name: str, text: str, new_event: New):
    hostile = {field: text for field in TEXTS if field not in {"severity", "source_ip"}}
    shown = FORMATS[name](new_event(**hostile))
    packed = json.dumps(shown)
    assert "\n" not in packed
    assert json.loads(packed) == shown


@given(text=st.text(), action=st.text(max_size=12))
def test_no_text_breaks_a_format(text: str, action: str):
    record = Record(
        kind=RecordKind.DECISION, time_ns=1, event_type=text, action=action,
        outcome=Outcome.DENIED, verdict=text, reason=text, guard=text, severity=text, message=text,
        resource=text, target_type=text, target_host=text, target_path=text, source_ip=text,
        upstream_address=text, user_agent=text,
    )  # fmt: skip
    event = ExportEvent(
        record=record, record_id=RecordId(origin="h", epoch=1, seq=1), batch_no=1, position=1, row=0
    )
    for shape in FORMATS.values():
        shown: Any = shape(event)
        assert "\n" not in (shown if isinstance(shown, str) else json.dumps(shown))

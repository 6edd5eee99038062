"""Every SARIF log that ``scan`` prints is one by the standard's schema, and one that GitHub takes.

What GitHub asks beside the schema is from its page "SARIF support for code scanning".
"""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import jsonschema
import pytest
from scan_lab import Call, Repository, token

SCHEMA = Path(__file__).parents[2] / "data/sarif/sarif-2.1.0-rtm.5.json"
RULES = """
[[rules]]
id = "no description, and spaces"
regex = "mine-[0-9]{6}"
tags = [TAGS]
[[rules]]
id = "long"
description = "LONG"
regex = "long-[0-9]{6}"
[[rules]]
id = "by-name"
path = "[.]key$"
""".replace("TAGS", ", ".join(f'"tag {number}"' for number in range(30))).replace(
    "LONG", "words " * 300
)
LEVELS = {"none", "note", "warning", "error"}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft4Validator:
    return jsonschema.Draft4Validator(json.loads(SCHEMA.read_text()))


def _holds(text: str, validator: jsonschema.Draft4Validator) -> dict:
    """Return the only run of a log, which is valid and within GitHub's bounds."""
    log = json.loads(text)
    validator.validate(log)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules) <= 25_000
    for rule in rules:
        assert 0 < len(rule["id"]) <= 255
        for key in ("shortDescription", "fullDescription"):
            assert 0 < len(rule[key]["text"]) <= 1_024
        assert rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in LEVELS
        assert len(rule["properties"]["tags"]) <= 20
        assert "security" in rule["properties"]["tags"]
        assert 0.0 < float(rule["properties"]["security-severity"]) <= 10.0
    for result in run["results"]:
        _result_holds(result, rules)
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is ("toolExecutionNotifications" not in invocation)
    return run


def _result_holds(result: dict, rules: list[dict]) -> None:
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert result["level"] in LEVELS
    assert result["message"]["text"]
    assert all(result["partialFingerprints"].values())
    (location,) = result["locations"]
    uri = urlsplit(location["physicalLocation"]["artifactLocation"]["uri"])
    assert uri.path
    assert (uri.scheme, uri.netloc, uri.query, uri.fragment) == ("", "", "", "")
    region = location["physicalLocation"].get("region")
    if region is not None:
        start = region["startLine"], region["startColumn"]
        assert (1, 1) <= start < (region["endLine"], region["endColumn"])


def test_names_of_any_kind_are_relative_references(
    scan: Call, folder: Path, validator: jsonschema.Draft4Validator
):
    names = ["ä b", "a:b", "100%", "a#b?c", "a\\b", "new\nline", "\x1b[31m", "-x", "😀", '&<>"']
    for name in names:
        (folder / name).write_text(f"ä {token(1)}\n")
    results = _holds(scan(".", "--format", "sarif").stdout, validator)["results"]
    places = [one["locations"][0]["physicalLocation"] for one in results]
    told = {unquote_to_bytes(place["artifactLocation"]["uri"]) for place in places}
    assert told == {os.fsencode(name) for name in names}
    region = {"startLine": 1, "startColumn": 3, "endLine": 1, "endColumn": 43}
    assert all(place["region"] == region for place in places)


def test_what_gitleaks_rules_find_is_valid(
    scan: Call, folder: Path, validator: jsonschema.Draft4Validator
):
    (folder / "rules.toml").write_text(RULES)
    (folder / "a.key").write_text("\nlong-123456 mine-123456\n")
    found = _holds(scan("a.key", "--rules", "rules.toml", "--format", "sarif").stdout, validator)
    places = [one["locations"][0]["physicalLocation"] for one in found["results"]]
    assert [one.get("region", {}).get("startLine") for one in places] == [None, 2, 2]
    described = found["tool"]["driver"]["rules"][0]
    assert described["shortDescription"]["text"] == "no description, and spaces"
    assert described["properties"]["tags"][:3] == ["security", "secret", "tag 0"]


def test_what_is_wrapped_outside_unread_or_in_history_is_valid(
    scan: Call,
    repository: Repository,
    validator: jsonschema.Draft4Validator,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(token(4).encode())))
    wrapped = base64.b64encode(f"x {token(1)} y".encode()).decode()
    repository.write("a", f"{wrapped}\n")
    (repository.path.parent / "outside").write_text(token(2))
    repository.commit(f"why {token(3)}")
    for arguments, successful in (
        ((".", "../outside", str(repository.path / "a")), True),
        ((".", "/proc/self/mem"), False),
        (("--history",), True),
        (("-",), True),
    ):
        run = _holds(scan(*arguments, "--format", "sarif").stdout, validator)
        assert run["invocations"][0]["executionSuccessful"] is successful


def test_a_flood_is_valid(scan: Call, folder: Path, validator: jsonschema.Draft4Validator):
    (folder / "a").write_text("\n".join(map(token, range(300))) + "\n" + token(1) * 200)
    run = _holds(scan("a", "--format", "sarif").stdout, validator)
    assert len(run["results"]) >= 300

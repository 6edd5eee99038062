"""What the listener of watched files is told crosses to it whole."""

from __future__ import annotations

import json

import pytest

from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.secret_registry import Registry
from aesp_proxy.daemon.secret_sources import Value
from aesp_proxy.daemon.watching import config_line, registered_in
from aesp_proxy.errors import InputError

SECRET = b"Xq7hPz2Lw9sVb4Tn8cRk"


def test_registered_values_cross_as_hashes_and_are_found_there():
    registry = Registry(b"k" * 32)
    registry.add([Value(name="IT", source="test", value=SECRET)])
    line = config_line(Settings(), session_id="s", registry=registry)
    assert SECRET not in line
    index = registered_in(json.loads(line))
    assert index is not None
    assert index.names() == {"IT": ("test",)}


def test_without_registered_values_there_is_nothing_to_look_for():
    for registry in (None, Registry(b"k" * 32)):
        assert (
            registered_in(json.loads(config_line(Settings(), session_id="s", registry=registry)))
            is None
        )


@pytest.mark.parametrize(
    "frame",
    [
        {"exact_key": 7},
        {"exact_key": "aaaa", "registered": "x"},
        {"exact_key": "a", "registered": []},
    ],
    ids=["key", "list", "base64"],
)
def test_a_damaged_line_is_refused(frame):
    with pytest.raises(InputError):
        registered_in(frame)

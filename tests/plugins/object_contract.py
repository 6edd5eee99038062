"""What every ``ObjectStore`` promises; a test file gives the store in a fixture ``objects``."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from aesp_proxy.aggregator.ports import ObjectStore
from aesp_proxy.errors import RecordError

_numbers = count(1)


class ObjectContract:
    """Subclass it; keys are new in each test, so that a bucket may be shared."""

    @pytest.fixture
    def place(self) -> str:
        return f"contract/{next(_numbers)}"

    @pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
    def test_what_is_put_is_got(self, objects: ObjectStore, place: str, size: int) -> None:
        content = bytes(range(256)) * (size // 256) + bytes(size % 256)
        objects.put_all([(f"{place}/one", content)])
        assert objects.get(f"{place}/one") == content

    def test_many_are_put_at_once(self, objects: ObjectStore, place: str) -> None:
        wanted = [(f"{place}/{n}", bytes([n]) * 7_000) for n in range(16)]
        objects.put_all(wanted)
        assert [objects.get(key) for key, _ in wanted] == [content for _, content in wanted]

    def test_none_are_put_without_a_fault(self, objects: ObjectStore) -> None:
        objects.put_all([])

    def test_the_same_again_is_no_fault(self, objects: ObjectStore, place: str) -> None:
        for _ in range(3):
            objects.put_all([(f"{place}/one", b"same")])
        assert objects.get(f"{place}/one") == b"same"

    def test_replacing_an_object_replaces_all_of_it(self, objects: ObjectStore, place: str) -> None:
        objects.put_all([(f"{place}/one", b"long content")])
        objects.put_all([(f"{place}/one", b"short")])
        assert objects.get(f"{place}/one") == b"short"

    def test_what_is_not_there_is_a_record_error(self, objects: ObjectStore, place: str) -> None:
        with pytest.raises(RecordError):
            objects.get(f"{place}/none")
        assert objects.find(f"{place}/none") is None
        objects.put_all([(f"{place}/one", b"1")])
        assert objects.find(f"{place}/one") == b"1"

    @pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/../../up", "a/./b", "."])
    def test_a_key_never_leads_out(self, objects: ObjectStore, key: str) -> None:
        for ask in (objects.get, lambda key: objects.put_all([(key, b"x")])):
            with pytest.raises(RecordError):
                ask(key)

    def test_removing_takes_what_is_there_and_says_how_many(
        self, removing: Any, place: str
    ) -> None:
        removing.put_all([(f"{place}/one", b"1"), (f"{place}/two", b"2")])
        assert removing.remove_all([f"{place}/one", f"{place}/none"]) == 1
        assert removing.get(f"{place}/two") == b"2"
        with pytest.raises(RecordError):
            removing.get(f"{place}/one")

"""What was compiled and numpy find the same grams, read nothing else, and refuse what is wrong."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.secrets import compiled as product
from aesp_proxy.decide.secrets import gram_marks, grams
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.grams import GramTable
from aesp_proxy.decide.secrets.registered import PARTS, SEPARATOR, TIERS, Hasher, Tier, entry
from aesp_proxy.decide.secrets.wrappings import spellings

KEY = b"a key of the tests of registered grams"
HASHER = Hasher(KEY)
compiled = pytest.importorskip(
    "aesp_proxy.decide.secrets._marks", reason="built without a C compiler"
)

# Few letters, so that grams come again; with the separator and what looks like it.
LETTERS = st.sampled_from(b"ab \x00\xa0!")
TEXTS = st.one_of(
    st.binary(max_size=90),
    st.lists(LETTERS, max_size=400).map(bytes),
    st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 60)).map(
        lambda one: one[0] * one[1]
    ),
)
KINDS = st.tuples(st.sampled_from([*TIERS, PARTS]), st.sampled_from([b"", SEPARATOR]))


def table_of(tier: Tier, separator: bytes, texts: list[bytes]) -> GramTable:
    made = GramTable(tier, HASHER.multiplier, separator)
    made.add([(tier.hashes(text, HASHER.multiplier), number, len(text) % 1_024)
              for number, text in enumerate(texts) if len(text) >= tier.gram_bytes])  # fmt: skip
    return made


def both(table: GramTable, before: bytes, data: bytes, stride: int = 0) -> list[gram_marks.Mark]:
    tier = table.tier
    given = (
        before, data, tier.gram_bytes, stride or tier.stride, HASHER.multiplier,
        table._words, table._known, table._separator,
    )  # fmt: skip
    found = compiled.marks(*given)
    assert found == gram_marks.marks(*given)
    return found


@settings(max_examples=60)
@given(KINDS, st.lists(TEXTS, min_size=1, max_size=3), TEXTS, TEXTS, st.integers(0, 60))
def test_both_ways_find_the_same_in_the_same_order(kind, texts, before, rest, at):
    table = table_of(*kind, texts)
    if not table._count:
        return
    data = rest[:at] + texts[0] + rest[at:]
    both(table, before, data)
    both(table, data[:at], data[at:])
    if kind[0] is PARTS:
        both(table, before, data, 4)


@given(st.integers(0, 22), st.integers(0, 40), st.binary(max_size=40))
def test_a_window_is_met_wherever_a_piece_ends(cut, before, noise):
    for tier in TIERS:
        window = bytes(range(0x41, 0x41 + tier.window_bytes))
        table = table_of(tier, SEPARATOR, [window])
        data = (b"#" * before) + window + noise
        at = before + min(cut, len(window))
        found = both(table, data[:at], data[at:])
        first = both(table, b"", data[:at])
        assert found or first
        assert both(table, b"", data)


def test_each_spelling_of_many_values_is_found_by_both(monkeypatch: pytest.MonkeyPatch):
    chance = random.Random(8)
    letters = b"abcdefXYZ0123456789 \"'\\%&\xc3\xa9\xff"
    values = [bytes(chance.choices(letters, k=chance.randint(9, 40))) + b"7!x" for _ in range(150)]
    kept = [entry(f"V{number}", "test", value, hasher=HASHER, fingerprint_key=KEY)
            for number, value in enumerate(values)]  # fmt: skip
    index = ExactIndex(KEY)
    index.add(kept)
    for way in (compiled.marks, gram_marks.marks):
        monkeypatch.setattr(grams, "_marks", way)
        for number, value in enumerate(values):
            for name, text in spellings(value.strip())[:: 1 if number < 30 else 9]:
                if len(value.strip()) >= 36:
                    continue  # known by pieces
                data = b"x" * (number % 17) + text + b"  y"
                found = {one.rule.id for one in index.block(data)[0]}
                assert f"registered:V{number}" in found, (value, name)


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [({2: 0}, "grams are"), ({2: 9}, "grams are"), ({3: 0}, "grams are"), ({3: 32}, "grams are"),
     ({3: 3}, "grams are"), ({5: b""}, "a filter"), ({5: bytes(8)}, "a filter"),
     ({5: bytes(24)}, "a filter"), ({5: bytes(17)}, "a filter"), ({6: (bytes(9),)}, "eight bytes"),
     ({6: (b"",) * 17}, "too many"), ({7: b"  "}, "a separator")],
)  # fmt: skip
def test_what_is_no_table_is_refused(changed: dict[int, object], wrong: str):
    given: list[object] = [b"", b"x" * 64, 8, 16, 3, bytes(16), (), b""]
    assert compiled.marks(*given) == []
    for place, value in changed.items():
        given[place] = value
    with pytest.raises(ValueError, match=wrong):
        compiled.marks(*given)
    with pytest.raises(TypeError):
        compiled.marks(*given[:-1])


def test_what_was_compiled_is_what_searches():
    assert product.MARKS is compiled
    assert compiled.EDITION == product.EDITION
    assert grams._marks is compiled.marks

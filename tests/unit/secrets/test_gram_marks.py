"""What was compiled and numpy find the same grams, read nothing else, and refuse what is wrong."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesp_proxy.decide.secrets import compiled as product
from aesp_proxy.decide.secrets import gram_marks, grams
from aesp_proxy.decide.secrets.exact import ExactIndex
from aesp_proxy.decide.secrets.gram_shapes import SHAPES, shapes_of
from aesp_proxy.decide.secrets.grams import GramTable
from aesp_proxy.decide.secrets.registered import PARTS, TIERS, Hasher, Tier, entry
from aesp_proxy.decide.secrets.wrappings import spellings

KEY = b"a key of the tests of registered grams"
HASHER = Hasher(KEY)
compiled = pytest.importorskip(
    "aesp_proxy.decide.secrets._marks", reason="built without a C compiler"
)

# Few letters, so that grams come again: of words, tokens, others, with spaces and what looks so.
LETTERS = st.sampled_from(b"aaabz7_ \x00\xa0!{`")
TEXTS = st.one_of(
    st.binary(max_size=90),
    st.lists(LETTERS, max_size=400).map(bytes),
    st.lists(st.sampled_from(b"abcZ9-"), max_size=90).map(bytes),
    st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 60)).map(
        lambda one: one[0] * one[1]
    ),
)


def table_of(tier: Tier, texts: list[bytes]) -> GramTable:
    made = GramTable(tier, HASHER.multiplier, is_shaped=tier is not PARTS)
    made.add([
        (
            tier.hashes(text, HASHER.multiplier),
            number,
            len(text) % 1_024,
            shapes_of(text, tier.gram_bytes) if made.is_shaped else b"",
        )
        for number, text in enumerate(texts)
        if len(text) >= tier.gram_bytes
    ])  # fmt: skip
    return made


def both(table: GramTable, before: bytes, data: bytes, stride: int = 0) -> list[gram_marks.Mark]:
    bound = table.at_each(stride or table.tier.stride)
    found = compiled.marks(*bound.args, before, data)
    assert found == gram_marks.marks(*bound.args, before, data)
    return found


@settings(max_examples=60)
@given(
    st.sampled_from([*TIERS, PARTS]),
    st.lists(TEXTS, min_size=1, max_size=3),
    TEXTS,
    st.tuples(TEXTS, st.integers(0, 9)).map(lambda one: one[0] * one[1]),
    st.integers(0, 60),
)
def test_both_ways_find_the_same(tier, texts, before, rest, at):
    window = tier.window_bytes
    cut = [text[:window] for text in texts if len(text) >= window] if tier is not PARTS else texts
    table = table_of(tier, cut)
    if not len(table):
        return
    data = rest[:at] + texts[0] + rest[at:]
    both(table, before, data)
    both(table, data[:at], data[at:])
    both(table, data, b"".join((data, before, texts[-1], rest, *texts)) * 3)
    if tier is PARTS:
        both(table, before, data, 4)


@settings(max_examples=60)
@given(
    st.sampled_from(TIERS),
    TEXTS,
    st.tuples(TEXTS, TEXTS),
    st.tuples(st.integers(0, 3_000), st.integers(0, 300)),
    st.integers(0, 30),
)
def test_a_window_is_met_whatever_is_around_it(tier, text, around, far, cut):
    window = (text + b"0a7-x[ ]Q" * 3)[: tier.window_bytes]
    table = table_of(tier, [window])
    front, behind = b"ab-C1 "[-(far[0] % 6) :] * (far[0] // 6), b"{7" * far[1]
    data = front + around[0] + window + around[1] + behind
    start = len(front) + len(around[0])
    assert start in [at - begun for at, begun, _ in both(table, b"", data)]
    # Cut anywhere in it: what the first piece does not meet, the next does.
    at = min(start + cut, len(data))
    met = [at - begun for at, begun, _ in both(table, b"", data[:at])]
    met += [at + place - begun for place, begun, _ in both(table, data[:at], data[at:])]
    assert start in met


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("letter", [b"G", b"g"], ids=["a token", "a word"])
def test_a_window_that_others_enclose_is_met_at_each_position(tier, letter):
    window = letter * tier.window_bytes
    table = table_of(tier, [window])
    short = letter * (tier.window_bytes - 1)
    for at in range(200, 200 + 2 * 64):
        data = b'"' * at + window + b'"' * (600 - at)
        assert at in [place - begun for place, begun, _ in both(table, b"", data)]
        assert not both(table, b"", data.replace(window, short + b'"'))


def test_each_spelling_of_many_values_is_found_by_both(monkeypatch: pytest.MonkeyPatch):
    chance = random.Random(8)
    letters = b"abcdefXYZ0123456789 \"'\\%&\xc3\xa9\xff"
    values = [bytes(chance.choices(letters, k=chance.randint(9, 40))) + b"7!x" for _ in range(150)]
    kept = [entry(f"V{number}", "test", value, hasher=HASHER, fingerprint_key=KEY)
            for number, value in enumerate(values)]  # fmt: skip
    for way in (compiled.marks, gram_marks.marks):
        monkeypatch.setattr(grams, "_marks", way)
        index = ExactIndex(KEY)
        index.add(kept)
        for number, value in enumerate(values):
            for name, text in spellings(value.strip())[:: 1 if number < 30 else 9]:
                if len(value.strip()) >= 36:
                    continue  # known by pieces
                data = b"x" * (number % 17) + text + b"  y"
                found = {one.rule.id for one in index.block(data)[0]}
                assert f"registered:V{number}" in found, (value, name)


FILTERS = (bytes(16), *[b""] * (SHAPES - 1))
MASKS = bytes((1, *[0] * 255))


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [({0: 0}, "grams are"), ({0: 9}, "grams are"), ({1: 0}, "grams are"), ({1: 32}, "grams are"),
     ({1: 3}, "grams are"), ({3: (bytes(8), *FILTERS[1:])}, "a filter is"),
     ({3: (bytes(24), *FILTERS[1:])}, "a filter is"), ({3: (bytes(17), *FILTERS[1:])}, "a filter"),
     ({3: FILTERS[1:]}, "for each shape"), ({4: bytes(255)}, "256 masks"),
     ({4: bytes(256)}, "no such gram"), ({4: b"\x03" + MASKS[1:]}, "no such gram"),
     ({4: b"\x01\x08" + MASKS[2:]}, "no such gram"), ({5: (bytes(9),)}, "eight bytes"),
     ({5: (b"",) * 17}, "too many")],
)  # fmt: skip
def test_what_is_no_table_is_refused(changed: dict[int, object], wrong: str):
    given: list[object] = [8, 16, 3, FILTERS, MASKS, (), b"", b"x" * 64]
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

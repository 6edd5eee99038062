"""Path globs, against a table and against a slow reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesp_proxy.decide.policy.globs import PathGlobs, check_path_glob
from aesp_proxy.decide.policy.sourced import Sourced
from aesp_proxy.errors import ConfigError


def matches(pattern: str, path: str, *, fold: bool = True) -> bool:
    return PathGlobs([Sourced(pattern, "p:1", 3)], fold=fold).find(path) is not None


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/root/**", "/root"),
        ("/root/**", "/root/a/b"),
        ("/root/**", "/ROOT/a"),
        ("/**", "/"),
        ("**", "/"),
        ("**", "/a/b"),
        ("/", "/"),
        ("**/.env", "/.env"),
        ("**/.env", "/a/b/.env"),
        ("**/.env.*", "/a/.env.local"),
        ("**/id_rsa*", "/h/.ssh/id_rsa"),
        ("**/id_rsa*", "/h/ID_RSA.pub"),
        ("**/.ssh/**", "/home/x/.ssh"),
        ("**/.ssh/**", "/home/x/.ssh/config"),
        ("/a/**/b", "/a/b"),
        ("/a/**/b", "/a/x/y/b"),
        ("/a/*/b", "/a/x/b"),
        ("/a/?", "/a/é"),
        ("/a/?", "/a/\udcff"),
        ("/a/?", "/a/\n"),
        ("/a/*", "/a/x\ny"),
        ("/a/**", "/a/\udcff\udcfe"),
        ("/a/[a-c]x", "/a/bx"),
        ("/a/[!a-c]x", "/a/dx"),
        ("/a/[!a-c]x", "/a/éx"),
        ("/a/[]]", "/a/]"),
        ("/a/[a-]", "/a/-"),
        ("/a/*.{pem,key}", "/a/b.KEY"),
        ("/a/{b,c{d,e}}f", "/a/cef"),
        ("/a/x{,y}", "/a/x"),
        (r"/a/\*", "/a/*"),
        (r"/a/\{b\}", "/a/{b}"),
        ("/a/b.c", "/a/b.c"),
        ("/a/é", "/a/e\u0301"),
        ("/a/e\u0301", "/a/é"),
        ("/a/STRASSE", "/a/straße"),
        ("/a/$^+()|", "/a/$^+()|"),
    ],
)
def test_a_pattern_matches_what_it_names(pattern: str, path: str) -> None:
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/root/**", "/rootx"),
        ("/root/**", "/a/root/b"),
        ("/root", "/root/a"),
        ("/", "/a"),
        ("**/.env", "/a/.envx"),
        ("**/.env", "/a/x.env"),
        ("**/.env", "/a/.env/b"),
        ("/a/*", "/a"),
        ("/a/*", "/a/b/c"),
        ("/a/*/b", "/a/b"),
        ("/a/?", "/a/bc"),
        ("/a/?", "/a/éé"),
        ("/a/b.c", "/a/bxc"),
        ("/a/[!a-c]x", "/a/bx"),
        ("/a/[!a]", "/a/"),
        ("/a/x{y,z}", "/a/x"),
        ("/a/$^+()|", "/a/"),
    ],
)
def test_a_pattern_matches_nothing_else(pattern: str, path: str) -> None:
    assert not matches(pattern, path)


def test_what_excepts_is_compared_with_case() -> None:
    assert matches("**/.env.example", "/a/.env.example", fold=False)
    assert not matches("**/.env.example", "/a/.ENV.example", fold=False)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "empty"),
        ("~/.ssh/**", "'~' is nobody's home in a policy; write **/ before the rest"),
        ("secrets/**", "begins with / or **/"),
        ("*.pem", "begins with / or **/"),
        ("C:\\x", "begins with / or **/"),
        ("/a//b", "an empty name between slashes"),
        ("/a/", "write /**"),
        ("**/", "write /**"),
        ("/a/../b", "'..' never matches"),
        ("/a/./b", "'.' never matches"),
        ("/a**", "'**' stands alone"),
        ("/a/**b", "'**' stands alone"),
        ("/a/{b", "a '{' that is not closed"),
        ("/a/b}", "a '}' without '{'"),
        ("/a/{b/c}", "a slash inside braces"),
        ("/a/[b", "a '[' that is not closed"),
        ("/a/[]", "a '[' that is not closed"),
        ("/a/[é]", "ASCII"),
        ("/a/[z-a]", "runs backwards"),
        ("/a/[+-9]", "holds a slash"),
        ("/a/b\\", "a backslash at the end"),
        ("/a/{{{{{b}}}}}", "braces nested deeper than 4"),
        ("/a\x00", "a control character"),
        ("/a\n", "a control character"),
        ("/a\ud800", "a control character"),
        ("/" + "a" * 1024, "longer than 1024"),
    ],
)
def test_a_bad_pattern_is_refused_with_its_place_and_reason(pattern: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_path_glob(Sourced(pattern, "p.yaml:7", 9))
    assert str(caught.value).startswith("p.yaml:7:9: bad path pattern ")
    assert why in caught.value.message


def test_the_first_of_several_matching_patterns_is_named() -> None:
    globs = PathGlobs(
        [Sourced("/x", "p:1"), Sourced("**/b", "p:2"), Sourced("/a/**", "p:3")], fold=True
    )
    found = globs.find("/a/b")
    assert found is not None
    assert found.source == "p:2"


def test_a_thousand_patterns_still_answer() -> None:
    globs = PathGlobs([Sourced(f"**/secret{n}/**", f"p:{n}") for n in range(1000)], fold=True)
    assert globs.find("/a/b/c/d/e") is None
    found = globs.find("/a/secret999/b")
    assert found is not None
    assert found.source == "p:999"


def test_patterns_that_compile_to_much_are_kept_apart_and_say_nothing_on_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    long = [Sourced(f"/{'?' * 400}{n}", f"p:{n}") for n in range(20)]
    found = PathGlobs(long, fold=True).find(f"/{'é' * 400}19")
    assert found is not None
    assert found.source == "p:19"
    assert capfd.readouterr().err == ""


def _slow(pattern: list[str], path: list[str]) -> bool:
    """Match components by definition: ``**`` is any number of them, ``*`` any characters."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_slow(pattern[1:], path[cut:]) for cut in range(len(path) + 1))
    return bool(path) and _slow_name(pattern[0], path[0]) and _slow(pattern[1:], path[1:])


def _slow_name(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(_slow_name(pattern[1:], name[cut:]) for cut in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and _slow_name(pattern[1:], name[1:])


_NAME = st.text(alphabet=st.sampled_from("ab.é"), min_size=1, max_size=4).filter(
    lambda name: name not in (".", "..")
)
_GLOB_NAME = st.one_of(
    st.just("**"),
    st.text(alphabet=st.sampled_from("ab.é*?"), min_size=1, max_size=4).filter(
        lambda name: "**" not in name and name not in (".", "..")
    ),
)


@given(st.lists(_GLOB_NAME, min_size=1, max_size=4), st.lists(_NAME, max_size=5))
def test_the_compiled_matcher_agrees_with_the_definition(
    pattern: list[str], path: list[str]
) -> None:
    assert matches("/" + "/".join(pattern), "/" + "/".join(path)) == _slow(pattern, path)

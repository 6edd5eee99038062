"""Read the values out of the files in which credentials lie about, each format as it is.

Pure: text in, (name, value) out. What a file of a known format holds besides secrets (an
access key id, a user, a region) is not taken. Text that is none of the formats is taken
as lines of NAME=VALUE, or as one value a line.
"""

from __future__ import annotations

import base64
import binascii
import configparser
import itertools
import json
import shlex
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import yaml

from aesp_proxy.errors import ConfigError

Named = tuple[str, bytes]

_INI_SECRETS: Final = frozenset(
    {"aws_secret_access_key", "aws_session_token", "password", "secret_key", "_authtoken"}
)
_JSON_SECRETS: Final = frozenset({
    "private_key", "private_key_id", "client_secret", "refresh_token", "identitytoken",
    "registrytoken", "access_token", "id_token", "password", "token", "secret", "api_key",
})  # fmt: skip
_YAML_SECRETS: Final = frozenset(
    {"oauth_token", "token", "password", "client-key-data", "refresh-token", "id-token"}
)
_NPM_SECRETS: Final = frozenset({"_authtoken", "_password", "_auth"})
_ALL_SECRETS: Final = _INI_SECRETS | _JSON_SECRETS | _YAML_SECRETS | _NPM_SECRETS | {"auth"}
_LONE_CHARS_MIN: Final = 16
_NAME_LETTERS: Final = string.ascii_letters + string.digits + "_-"
_BEGIN, _END, _DASHES = "-----BEGIN", "-----END", "-----"


def values_in(data: bytes, name: str) -> tuple[Named, ...]:
    """Return the named values of a file; ``name`` is its last two parts, as ``.aws/credentials``.

    ConfigError when it is no text, or does not hold to its format.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("it is no UTF-8 text", where=name) from error
    try:
        found = tuple(_reader(text, name)(text))
    except (ValueError, yaml.YAMLError, configparser.Error, RecursionError) as error:
        # The parsers' own words quote what they read.
        raise ConfigError(
            f"it does not hold to its format ({type(error).__name__})", where=name
        ) from None
    return tuple((label, value) for label, value in found if value)


def values_left(data: bytes) -> tuple[Named, ...]:
    """Return what the lines of a broken file show: values whose names are those of secrets.

    Also keys in PEM form, passwords in URLs, and a line that is one long word. What is no
    text is passed over; nothing is raised.
    """
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        label = f"line-{number}"
        words = line.split()
        found += [(label, value) for value in _named_in(line, words)]
        found += url_passwords(label, (word.strip("\"',") for word in words))
        if len(words) == 1 and len(line) >= _LONE_CHARS_MIN and not set(line) & set("=:{}[]<>"):
            found.append((label, _encoded(words[0])))
    found += [("key", _encoded(key)) for key in _armours(text)]
    return tuple(found)


def _named_in(line: str, words: Sequence[str]) -> Iterator[bytes]:
    """Yield what stands behind the name of a secret: ``name = value``, ``"name": "value"``."""
    for at, letter in enumerate(line):
        if letter in "=:" and _word_before(line[:at]).lower() in _ALL_SECRETS:
            yield _encoded(_word_behind(line[at + 1 :]))
    for name, value in itertools.pairwise(words):
        if name == "password":  # of netrc
            yield _encoded(_word_behind(value))


def _word_before(text: str) -> str:
    text = text.rstrip().rstrip("\"'")
    return text[len(text.rstrip(_NAME_LETTERS)) :]


def _word_behind(text: str) -> str:
    text = text.strip()
    quote = text[:1]
    if quote in ("'", '"'):
        return text[1:].partition(quote)[0]
    return text.rstrip("},")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _armours(text: str) -> Iterator[str]:
    at = text.find(_BEGIN)
    while at >= 0:
        end = text.find(_END, at)
        stop = len(text) if end < 0 else text.find(_DASHES, end + len(_END))
        stop = len(text) if stop < 0 else min(len(text), stop + len(_DASHES))
        yield text[at:stop]
        at = text.find(_BEGIN, stop)


def _reader(text: str, name: str) -> Callable[[str], Iterable[Named]]:
    last = name.rpartition("/")[2]
    if text.lstrip().startswith("-----BEGIN"):
        return lambda whole: [(last, whole.strip().encode())]
    if last in ("_netrc", ".netrc"):
        return _netrc
    if last in (".npmrc", ".yarnrc"):
        return _npmrc
    if last == ".pgpass":
        return _pgpass
    if last == ".git-credentials":
        return lambda whole: url_passwords("git", whole.split())
    if text.lstrip().startswith("{"):
        return _json
    if text.lstrip().startswith("[") and "=" in text:
        return _ini
    if last.endswith((".yml", ".yaml")) or name == ".kube/config" or "\nusers:" in text:
        return _yaml
    return lines if "=" not in text else assignments


def assignments(text: str) -> Iterator[Named]:
    """Yield NAME=VALUE lines as shells and dotenv read them; comments and `export` go."""
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name = name.strip()
        if not equals or not name or name.startswith("#"):
            continue
        value = value.strip()
        if value[:1] in ("'", '"') and value.count(value[0]) > 1:
            quote = value[0]
            value = value[1 : value.rindex(quote)]
            if quote == '"':
                value = value.replace("\\n", "\n").replace('\\"', '"')
        else:
            value = value.partition(" #")[0].strip()
        yield name, value.encode()


def lines(text: str) -> Iterator[Named]:
    """Yield each line as a value, named by its number."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"line-{number}", line.strip().encode()


def url_passwords(name: str, urls: Iterable[str]) -> Iterator[Named]:
    """Yield what stands as password in URLs, as it is and percent-decoded."""
    for url in urls:
        _, _, rest = url.partition("://")
        userinfo, at, _ = rest.partition("/")[0].rpartition("@")
        password = userinfo.partition(":")[2] if ":" in userinfo else userinfo
        if at and password:
            yield name, password.encode()
            decoded = unquote_to_bytes(password)
            if decoded != password.encode():
                yield name, decoded


def _netrc(text: str) -> Iterator[Named]:
    words = shlex.split(text, comments=True)
    machine = "default"
    for word, after in itertools.pairwise(words):
        if word == "machine":
            machine = after
        elif word == "password":
            yield f"netrc/{machine}", after.encode()


def _npmrc(text: str) -> Iterator[Named]:
    for name, value in assignments(text):
        scope, _, key = name.rpartition(":")
        if (key or name).lower() in _NPM_SECRETS and not value.startswith(b"${"):
            label = f"npmrc/{scope.strip('/') or 'default'}"
            yield label, value
            yield from _decoded(label, value)


def _pgpass(text: str) -> Iterator[Named]:
    for line in text.splitlines():
        parts = line.replace("\\:", "\0").split(":")
        if len(parts) == 5 and not line.startswith("#"):
            yield f"pgpass/{parts[0]}", parts[4].replace("\0", ":").replace("\\\\", "\\").encode()


def _ini(text: str) -> Iterator[Named]:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(text)
    for section in parser.sections():
        for key, value in parser.items(section):
            if key in _INI_SECRETS:
                yield f"{section}/{key}", value.strip().encode()


def _json(text: str) -> Iterator[Named]:
    yield from _tree(json.loads(text), "", _JSON_SECRETS, is_leaf=_is_flat(text))


def _is_flat(text: str) -> bool:
    """Tell whether a JSON object is names and texts only: then every one is a value."""
    whole = json.loads(text)
    return (
        isinstance(whole, dict)
        and "type" not in whole
        and all(isinstance(value, str) for value in whole.values())
    )


def _yaml(text: str) -> Iterator[Named]:
    yield from _tree(yaml.load(text, Loader=yaml.CSafeLoader), "", _YAML_SECRETS, is_leaf=False)


def _tree(node: Any, path: str, secret: frozenset[str], *, is_leaf: bool) -> Iterator[Named]:  # noqa: ANN401 - any JSON
    """Yield the texts under keys that hold secrets, named by their path."""
    if isinstance(node, list):
        for index, each in enumerate(node):
            label = str(each.get("name", index)) if isinstance(each, dict) else str(index)
            yield from _tree(each, f"{path}/{label}", secret, is_leaf=is_leaf)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        label = f"{path}/{key}".strip("/")
        if not isinstance(value, str):
            yield from _tree(value, label, secret, is_leaf=is_leaf)
        elif is_leaf or str(key) in secret:
            yield label, value.encode()
            if key == "client-key-data":
                yield from ((label, each) for each in _base64(value.encode()))
        elif key == "auth":
            yield label, value.encode()
            yield from _decoded(label, value.encode())


def _decoded(label: str, value: bytes) -> Iterator[Named]:
    """Yield the password that base64 of ``user:password`` holds (RFC 7617)."""
    for decoded in _base64(value):
        _, colon, password = decoded.partition(b":")
        yield label, password if colon else decoded


def _base64(value: bytes) -> Iterator[bytes]:
    try:
        decoded = base64.b64decode(value, validate=True)
        decoded.decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return
    yield decoded

"""Read a settings file: YAML into dotted names, each value with its line and column.

Nodes are composed, not constructed: so every error has its place, a key that
stands twice is refused rather than the last one winning, and no tag can make
anything but text, numbers, booleans and maps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from aesp_proxy.daemon.config import KEYS, unknown_key
from aesp_proxy.daemon.config_values import Given
from aesp_proxy.errors import ConfigError

_FILE_BYTES_MAX: Final = 1 << 20
_DEPTH_MAX: Final = 8


def read_file(path: Path) -> dict[str, Given]:
    """Read one YAML file into a layer; relative paths in it are relative to it."""
    try:
        data = path.read_bytes()[: _FILE_BYTES_MAX + 1]
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"cannot read it: {reason}", where=str(path)) from error
    if len(data) > _FILE_BYTES_MAX:
        raise ConfigError(f"more than {_FILE_BYTES_MAX} bytes", where=str(path))
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        _check_depth(path, text, loader)
        node = yaml.compose(text, Loader=loader)
    except yaml.YAMLError as error:
        raise _yaml_error(path, error) from error
    if node is None:
        return {}
    layer: dict[str, Given] = {}
    _flatten(path, node, "", layer)
    return layer


def _check_depth(path: Path, text: str, loader: type[yaml.SafeLoader]) -> None:
    """Refuse deep nesting before composing: the C composer recurses until it crashes."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEPTH_MAX:
                mark = event.start_mark
                where = f"{path}:{mark.line + 1}" if mark else str(path)
                raise ConfigError("nested too deep", where=where)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _yaml_error(path: Path, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    problem = getattr(error, "problem", None) or str(error)
    return ConfigError(f"not YAML: {' '.join(str(problem).split())}", where=where)


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _flatten(path: Path, node: yaml.Node, prefix: str, layer: dict[str, Given]) -> None:
    """Turn nested maps into dotted names."""
    where = _place(path, node)
    seen: set[str] = set()
    for name, key_node, value in _entries(path, node, where):
        dotted = prefix + name
        if name in seen:
            raise ConfigError(f"{dotted} stands twice", where=_place(path, key_node))
        seen.add(name)
        is_group = any(known.startswith(f"{dotted}.") for known in KEYS)
        if is_group:
            _flatten(path, value, f"{dotted}.", layer)
        elif dotted not in KEYS:
            raise unknown_key(dotted, tuple(KEYS), _place(path, key_node))
        else:
            plain = _plain(path, value)
            if KEYS[dotted].kind is Path and isinstance(plain, str) and plain:
                plain = str(path.parent.absolute() / plain)
            if KEYS[dotted].form == "files" and isinstance(plain, list):
                plain = [[host, _below(path, file)] for host, file in plain]
            layer[dotted] = Given(value=plain, where=_place(path, value))


def _below(path: Path, file: object) -> object:
    """Make a path absolute that is relative to the settings file."""
    return str(path.parent.absolute() / file) if isinstance(file, str) and file else file


def _entries(path: Path, node: yaml.Node, where: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError("is not a map", where=where)
    entries: list[tuple[str, yaml.Node, yaml.Node]] = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError("a key is not text", where=_place(path, key))
        entries.append((str(key.value), key, value))
    return entries


def _plain(path: Path, node: yaml.Node) -> object:
    """Return the value of a scalar, or of a map of scalars."""
    if isinstance(node, yaml.MappingNode):
        pairs = [(name, _plain(path, value)) for name, _, value in _entries(path, node, "")]
        return [list(pair) for pair in pairs]
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError("a list has no place here", where=_place(path, node))
    text = str(node.value)
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "null":
            return None
        case "bool":
            return text.lower() in ("true", "yes", "on")
        case "int" | "float":
            return _number(text)
        case _:
            return text


def _number(text: str) -> object:
    """Read a decimal number; YAML 1.1's octal and base 60 stay text and are refused."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

"""Find and read the settings: file, environment and flags, into one ``Settings``.

The thin shell around ``config``. The environment is passed in. A file that was
asked for must exist; the two places looked at otherwise may be empty. YAML is
read by composing nodes, so that every error has a line and column, and a key
that stands twice is refused rather than the last one winning.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.config import KEYS, VARIABLES, Settings, build, unknown_key
from aesp_proxy.daemon.config_values import ENVIRONMENT_PREFIX, Given, Key
from aesp_proxy.errors import ConfigError

if typing.TYPE_CHECKING:
    import yaml

SYSTEM_FILE: Final = Path("/etc/aesp-proxy/config.yaml")
_FILE_BYTES_MAX: Final = 1 << 20


def load(
    *,
    environ: Mapping[str, str],
    is_root: bool,
    flags: Mapping[str, str],
    file: Path | None = None,
    system_file: Path = SYSTEM_FILE,
) -> Settings:
    """Return the settings: default < file < ``AESP_*`` < flag.

    ``flags`` maps dotted names to the text given on the command line. Raises
    ConfigError, one line, for everything that is wrong in any layer.
    """
    path = file if file is not None else _find_file(environ, system_file)
    layers: list[Mapping[str, Given]] = [
        {"state_dir": Given(value=str(default_state_dir(environ, is_root=is_root)), where="HOME")}
    ]
    if path is not None:
        layers.append(read_file(path))
    layers.append(from_environment(environ))
    layers.append(
        {name: _given(KEYS.get(name), text, f"flag for {name}") for name, text in flags.items()}
    )
    return build(layers)


def _given(key: Key | None, text: str, where: str) -> Given:
    """Take text as given; a path is made absolute, as a child may stand elsewhere."""
    if key is not None and key.kind is Path and text:
        text = str(Path(text).absolute())
    return Given(value=text, where=where, text=True)


def default_state_dir(environ: Mapping[str, str], *, is_root: bool) -> Path:
    """Return where the state lives when nobody says."""
    if is_root:
        return Path("/var/lib/aesp-proxy")
    base = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path is invalid and is to be ignored.
    home = Path(environ.get("HOME") or "/")
    root = Path(base) if base.startswith("/") else home / ".local/state"
    return root / "aesp-proxy"


def from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """Return the layer of ``AESP_*`` variables; ConfigError for one that nobody knows."""
    layer: dict[str, Given] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        key = VARIABLES.get(variable)
        if key is None:
            raise unknown_key(variable, tuple(VARIABLES), "environment")
        layer[key.name] = _given(key, text, variable)
    return layer


def _find_file(environ: Mapping[str, str], system_file: Path) -> Path | None:
    base = environ.get("XDG_CONFIG_HOME", "")
    home = environ.get("HOME", "")
    root = Path(base) if base.startswith("/") else Path(home) / ".config" if home else None
    places = [root / "aesp-proxy/config.yaml"] if root is not None else []
    for place in [*places, system_file]:
        try:
            if place.is_file():
                return place
        except OSError:
            continue
    return None


def read_file(path: Path) -> dict[str, Given]:
    """Read one YAML file into a layer; relative paths in it are relative to it."""
    import yaml  # noqa: PLC0415 - 20 ms that a start without a file does not pay

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
        node = yaml.compose(text, Loader=loader)
    except yaml.YAMLError as error:
        raise _yaml_error(path, error) from error
    except RecursionError as error:
        raise ConfigError("nested too deep", where=str(path)) from error
    if node is None:
        return {}
    layer: dict[str, Given] = {}
    _flatten(path, node, "", layer)
    return layer


def _yaml_error(path: Path, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    problem = getattr(error, "problem", None) or str(error)
    return ConfigError(f"not YAML: {' '.join(str(problem).split())}", where=where)


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _flatten(path: Path, node: yaml.Node, prefix: str, layer: dict[str, Given]) -> None:
    """Turn nested maps into dotted names; two levels is all there is."""
    where = _place(path, node)
    seen: set[str] = set()
    for name, key_node, value in _entries(path, node, where):
        dotted = prefix + name
        if name in seen:
            raise ConfigError(f"{dotted} stands twice", where=_place(path, key_node))
        seen.add(name)
        is_group = not prefix and any(known.startswith(f"{name}.") for known in KEYS)
        if is_group:
            _flatten(path, value, f"{name}.", layer)
        elif dotted not in KEYS:
            raise unknown_key(dotted, tuple(KEYS), _place(path, key_node))
        else:
            plain = _plain(path, value)
            if KEYS[dotted].kind is Path and isinstance(plain, str) and plain:
                plain = str(path.parent.absolute() / plain)
            layer[dotted] = Given(value=plain, where=_place(path, value))


def _entries(
    path: Path, node: yaml.Node, where: str
) -> list[tuple[str, yaml.Node, yaml.Node]]:
    if node.id == "scalar" and node.tag == "tag:yaml.org,2002:null":
        return []
    if node.id != "mapping":
        raise ConfigError("is not a map", where=where)
    entries = []
    for key, value in node.value:
        if key.id != "scalar":
            raise ConfigError("a key is not text", where=_place(path, key))
        entries.append((str(key.value), key, value))
    return entries


def _plain(path: Path, node: yaml.Node) -> object:
    """Return the value of a scalar, or of a map of scalars."""
    if node.id == "mapping":
        pairs = [(name, _plain(path, value)) for name, _, value in _entries(path, node, "")]
        return [list(pair) for pair in pairs]
    if node.id != "scalar":
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

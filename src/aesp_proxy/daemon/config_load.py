"""Find and read the settings: file, environment and flags, into one ``Settings``.

The thin shell around ``config``. The environment is passed in. A file that was
asked for must exist; the two places looked at otherwise may be empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from aesp_proxy.daemon.config import KEYS, VARIABLES, Settings, build, unknown_key
from aesp_proxy.daemon.config_values import ENVIRONMENT_PREFIX, WHY_VARIABLE, Given, Key
from aesp_proxy.errors import ConfigError

SYSTEM_FILE: Final = Path("/etc/aesp-proxy/config.yaml")


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
        # 20 ms of YAML that a start without a file does not pay.
        from aesp_proxy.daemon.config_file import read_file  # noqa: PLC0415

        layers.append(read_file(path))
    layers.append(from_environment(environ))
    layers.append(
        {
            name: replace(_given(KEYS.get(name), text, f"flag for {name}"), is_public=True)
            for name, text in flags.items()
        }
    )
    return build(layers)


def _given(key: Key | None, text: str, where: str) -> Given:
    """Take text as given; a path is made absolute, as a child may stand elsewhere."""
    if key is not None and key.kind is Path and text:
        text = str(Path(text).absolute())
    if key is not None and key.form == "files":
        pairs = (item.partition("=") for item in text.split(",") if item.strip())
        text = ",".join(
            f"{host}={Path(file.strip()).absolute()}" if file.strip() else host
            for host, _, file in pairs
        )
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
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == WHY_VARIABLE:
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
        except OSError as error:
            # It may hold a stricter setting: what cannot be looked at is not skipped.
            raise ConfigError(
                f"cannot look for settings here: {error.strerror}",
                where=str(place),
                remedy="make it readable, or name a file with --config",
            ) from error
    return None

"""The settings of registered secrets: which values are known, and so never leave."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from aesp_proxy.daemon.config_values import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Where the values come from that are looked for exactly."""

    env: str = setting(
        "*TOKEN*,*SECRET*,*PASSWORD*,*PASSWD*,*PASSPHRASE*,*API_KEY*,*APIKEY*,*ACCESS_KEY*,"
        "*PRIVATE_KEY*,*ENCRYPTION_KEY*,*SIGNING_KEY*,*CREDENTIAL*,*_KEY,*_PAT,*_PWD,*_AUTH,*_DSN,"
        "*DATABASE_URL*,*_URI,*CONNECTION_STRING*",
        "Names of variables of the agent whose values are registered (`run`), with `*`, in upper "
        "case; of a URL its password is. Empty for none. Also the names in `.env` files.",
        form="list",
    )  # fmt: skip
    env_except: str = setting(
        "*_KEY_ID,*_FILE,*_PATH,*_DIR,*_SOCK,*_ADDRESS,*TOKENIZERS*,*MAX_TOKENS*,SSH_AUTH_SOCK,"
        "AESP_*",
        "Names that are not.", form="list",
    )  # fmt: skip
    sources: str = setting(
        "credentials",
        "What else is registered, a list: `credentials` (the well-known files of the home: AWS, "
        "netrc, npm, pypi, pgpass, git, docker, gh, kube, gcloud, SSH keys), `file:PATH`, "
        "`dir:PATH` (a file a value, as Kubernetes mounts them), `vault:MOUNT/PATH`, "
        "`exec:COMMAND` (prints NAME=VALUE lines or a JSON object).",
        form="list",
    )  # fmt: skip
    vault_address: str = setting("", "URL of HashiCorp Vault.")
    vault_token_file: Path | None = setting(None, "File with the token for it.")
    vault_namespace: str = setting("", "Namespace of Vault Enterprise.")
    vault_ca_file: Path | None = setting(None, "PEM file of the roots that Vault is trusted by.")

    @property
    def source_list(self) -> tuple[str, ...]:
        """The sources, one by one."""
        return tuple(each.strip() for each in self.sources.split(",") if each.strip())

    def is_secret_name(self, name: str) -> bool:
        """Tell whether a variable of this name is registered."""
        upper = name.upper()
        return _any(upper, self.env) and not _any(upper, self.env_except)


def _any(name: str, patterns: str) -> bool:
    return any(fnmatchcase(name, each.strip()) for each in patterns.upper().split(","))

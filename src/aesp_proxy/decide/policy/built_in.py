"""What a policy means where it says nothing: the built-in lists."""

from __future__ import annotations

from typing import Final

BUILT_IN_PATHS: Final = (
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/sudoers",
    "/etc/sudoers.d/**",
    "/root/**",
    "**/.ssh/**",
    "**/.aws/**",
    "**/.gcloud/**",
    "**/.azure/**",
    "**/.gnupg/**",
    "**/.kube/**",
    "**/.vault/**",
    "**/secrets/**",
    "**/.docker/config.json",
    "**/.npmrc",
    "**/.pypirc",
    "**/.netrc",
    "**/.git-credentials",
    "**/*.pem",
    "**/*.key",
    "**/id_rsa*",
    "**/id_ed25519*",
    "**/id_ecdsa*",
    "**/.env",
    "**/.env.*",
    "**/terraform.tfstate*",
)
"""What ``forbidden_path`` forbids when it states no ``patterns``."""

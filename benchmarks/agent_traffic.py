"""What agents send and hold beside prose and code: documents that are made, or of this machine.

Streams of a model's answer cut anywhere, notebooks with pictures, terminals with colours,
changes, certificates and public keys, manifests, specifications of interfaces, packs of git
and maps of sources in base64. Nothing of it is a secret.
"""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.traffic import Traffic, identifier

_CERTIFICATES = Path("/etc/ssl/certs")
_CERTIFICATES_MAX = 40
_ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_BASE64_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _alnum(chance: random.Random, count: int) -> str:
    return "".join(chance.choices(_ALNUM, k=count))


def _base64(chance: random.Random, count: int) -> str:
    return base64.b64encode(chance.randbytes(count)).decode()


def stream(chance: random.Random, traffic: Traffic) -> bytes:
    """Return an answer as one of four providers streams it, a few letters an event."""
    text = traffic.prose(60) + "\n```python\n" + traffic.source(2) + "```\n"
    name, shape = f"chatcmpl-{_alnum(chance, 29)}", chance.randrange(4)
    events = []
    while text:
        size = chance.randint(1, 9)
        said, text = text[:size], text[size:]
        if shape == 0:
            choice = {"index": 0, "delta": {"content": said}, "finish_reason": None}
            event: object = {"id": name, "object": "chat.completion.chunk", "choices": [choice]}
        elif shape == 1:
            event = {"type": "response.output_text.delta", "item_id": name, "delta": said,
                     "obfuscation": _alnum(chance, chance.randint(2, 16))}  # fmt: skip
        elif shape == 2:
            delta = {"type": "input_json_delta", "partial_json": said}
            event = {"type": "content_block_delta", "index": 0, "delta": delta}
        else:
            event = {"candidates": [{"content": {"parts": [{"text": said}], "role": "model"}}]}
        events.append(f"data: {json.dumps(event)}\n\n")
    return "".join(events).encode()


def notebook(chance: random.Random, traffic: Traffic) -> bytes:
    """Return a notebook: code, tables in HTML, and pictures of its plots in base64."""
    cells = [
        {
            "cell_type": "code", "execution_count": n, "id": chance.randbytes(4).hex(),
            "metadata": {}, "source": traffic.source(3).splitlines(keepends=True),
            "outputs": [
                {"output_type": "display_data", "data": {
                    "image/png": _base64(chance, chance.randrange(2_000, 30_000)),
                    "text/html": [f"<td>{chance.random()}</td>" for _ in range(40)],
                }},
            ],
        }
        for n in range(4)
    ]  # fmt: skip
    return json.dumps({"cells": cells, "nbformat": 4}, indent=1).encode() + b"\n"


def terminal(chance: random.Random, traffic: Traffic) -> bytes:
    """Return what a terminal shows, with colours, cursors and the progress of downloads."""
    rows = []
    for _ in range(30):
        word, done = chance.choice(traffic.words), chance.randrange(100)
        rows.append(
            f"\x1b[32m✓\x1b[0m \x1b[1m{word}\x1b[22m \x1b[2m({done} ms)\x1b[0m\r\n"
            f"\x1b[2K\r{word}-{done}.whl \x1b[35m{'━' * (done // 4)}\x1b[0m {done}%\r\n"
            f"\x1b[33m{chance.randbytes(4).hex()[:7]}\x1b[m {traffic.prose(6)}\r\n"
            f"\x1b]8;;https://ci.example/{chance.randrange(10**8)}\x1b\\{word}\x1b]8;;\x1b\\\r\n"
        )
    return "".join(rows).encode()


def change(chance: random.Random, traffic: Traffic) -> bytes:
    """Return a change as a tool call carries it: the difference in a string in a string."""
    lines = [f"{chance.choice(' +-')}{line}" for line in traffic.source(6).splitlines()]
    name = chance.choice(traffic.words)
    text = (
        f"diff --git a/{name}.py b/{name}.py\nindex {chance.randbytes(5).hex()}.."
        f"{chance.randbytes(5).hex()} 100644\n@@ -1,{len(lines)} +1,{len(lines)} @@\n"
        + "\n".join(lines)
    )
    arguments = json.dumps({"path": f"src/{name}.py", "old": text, "new": traffic.source(2)})
    call = {
        "id": f"call_{_alnum(chance, 24)}",
        "function": {"name": "edit", "arguments": arguments},
    }
    return json.dumps({"role": "assistant", "tool_calls": [call]}).encode() + b"\n"


def certificate(chance: random.Random, _: Traffic) -> bytes:
    """Return certificates of this machine, requests' digits in lines of 64, and public keys."""
    found = sorted(_CERTIFICATES.glob("*.pem"))[:_CERTIFICATES_MAX]
    body = _base64(chance, 1_100)
    rows = [body[at : at + 64] for at in range(0, len(body), 64)]
    shown = chance.choice(found).read_bytes() if found else b""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(chance.randbytes(32)).public_key()
    other = ec.derive_private_key(chance.randrange(1, 1 << 250), ec.SECP256R1()).public_key()
    return (
        shown
        + b"-----BEGIN CERTIFICATE-----\n" + "\n".join(rows).encode()
        + b"\n-----END CERTIFICATE-----\n"
        + key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" user@host\n"
        + other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        + f"ssh-rsa AAAAB3NzaC1yc2E{_base64(chance, 380)} user@host\n".encode()
        + f"SHA256:{_base64(chance, 32).rstrip('=')} user@host (ED25519)\n".encode()
    )  # fmt: skip


def manifest(chance: random.Random, traffic: Traffic) -> bytes:
    """Return a manifest of Kubernetes with names, digests and certificates of authorities."""
    word, other = chance.choices(traffic.words, k=2)
    authority = base64.b64encode(
        b"-----BEGIN CERTIFICATE-----\n" + _base64(chance, 700).encode() + b"\n"
    )
    return (
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {word}\n  uid: "
        f"{identifier(chance)}\n  annotations:\n    checksum/config: {chance.randbytes(32).hex()}\n"
        f"spec:\n  template:\n    spec:\n      imagePullSecrets:\n      - name: {word}-registry\n"
        f"      containers:\n      - name: {other}\n        image: registry.example/{other}@sha256:"
        f"{chance.randbytes(32).hex()}\n        env:\n        - name: {other.upper()}_API_KEY\n"
        f"          valueFrom:\n            secretKeyRef:\n              name: {word}\n"
        f"              key: api-key\n        - name: DATABASE_PASSWORD_FILE\n          value: "
        f"/run/secrets/{word}\n---\napiVersion: admissionregistration.k8s.io/v1\nwebhooks:\n"
        f"- clientConfig:\n    caBundle: {authority.decode()}\n---\n"
    ).encode()


def interface(chance: random.Random, traffic: Traffic) -> bytes:
    """Return a specification of an interface, with schemes of authentication and examples."""
    word, other = chance.choices(traffic.words, k=2)
    example = {"id": identifier(chance), "etag": chance.randbytes(10).hex(), "text": "OK",
               "next_cursor": _base64(chance, 24), "status": "active"}  # fmt: skip
    paths = {
        f"/v1/{word}/{{{other}_id}}": {
            "get": {
                "operationId": f"get{word.title()}{other.title()}", "summary": traffic.prose(8),
                "security": [{"ApiKeyAuth": []}, {"OAuth2": [f"{word}:read"]}],
                "parameters": [{"name": f"{other}_id", "example": _alnum(chance, 22)}],
                "responses": {"200": {"content": {"application/json": {"example": example}}}},
            }
        }
    }  # fmt: skip
    scheme = {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "Your API key"}
    return json.dumps(
        {"openapi": "3.1.0", "paths": paths, "components": {"securitySchemes": {"A": scheme}}},
        indent=2,
    ).encode()


def packed(chance: random.Random, traffic: Traffic) -> bytes:
    """Return a pack of git in base64, a map of sources in a data URL and a bundle's strings."""
    objects = b"".join(
        bytes([0xB0 | 15, 0x20]) + zlib.compress(traffic.source(8).encode()) for _ in range(6)
    )
    pack = b"PACK" + struct.pack(">II", 2, 6) + objects + chance.randbytes(20)
    text = traffic.source(3)
    names = chance.choices(traffic.words, k=9)
    mappings = ";".join(
        ",".join("".join(chance.choices(_BASE64_DIGITS, k=4)) for _ in range(30)) for _ in range(20)
    )
    source_map = {"version": 3, "sources": [f"webpack://{names[0]}/src/{names[1]}.ts"],
                  "names": names, "sourcesContent": [text], "mappings": mappings}  # fmt: skip
    data = base64.b64encode(json.dumps(source_map).encode()).decode()
    return (
        json.dumps({"pack": base64.b64encode(pack).decode()}).encode()
        + f"\n//# sourceMappingURL=data:application/json;base64,{data}\n".encode()
        + f'@font-face{{src:url("data:font/woff2;base64,{_base64(chance, 3_000)}")}}\n'.encode()
    )

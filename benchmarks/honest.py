"""Traffic that holds no secret of anybody: made from a seed, and collected on this machine.

Nothing is fetched. What is collected are Python's own library, the packages of this
environment and the tree of npm, so it differs from machine to machine.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import agent_traffic
from benchmarks.traffic import Traffic, fill, identifier

ROOT = Path(__file__).resolve().parents[1]
MB = 1_000_000
DOCUMENT_BYTES = 256 * 1024
SEED = 20_261_126


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Bytes of one kind, with a name to find them by."""

    kind: str
    name: str
    data: bytes


def documents(*, share: float = 1.0, kinds: Iterable[str] = ()) -> Iterator[Document]:
    """Yield at least 100 MB, or that share of it, kind by kind; all kinds when none is named."""
    for kind in kinds or KINDS:
        size, make = KINDS[kind]
        left = int(size * share)
        for document in make(random.Random(f"{SEED} {kind}")):
            yield document
            left -= len(document.data)
            if left <= 0:
                break


Make = Callable[[random.Random], Iterable[Document]]


def _made(kind: str, one: Callable[[random.Random, Traffic], bytes]) -> Make:
    """Return documents that ``one`` makes without end."""

    def make(chance: random.Random) -> Iterator[Document]:
        traffic = Traffic(chance.randrange(1 << 30))
        number = 0
        while True:
            data = fill(DOCUMENT_BYTES, lambda: one(chance, traffic))
            yield Document(kind=kind, name=f"made/{number}", data=data)
            number += 1

    return make


def _collected(kind: str, folders: Callable[[], Iterable[Path]], *endings: str) -> Make:
    """Return files below folders in an order of chance; all when no endings are named."""

    def make(chance: random.Random) -> Iterator[Document]:
        found = sorted(
            path
            for folder in folders()
            for path in folder.rglob("*")
            if path.is_file()
            and not path.is_symlink()
            and "__pycache__" not in path.parts
            and (not endings or path.name.endswith(endings))
        )
        chance.shuffle(found)
        for path in found:
            yield Document(kind=kind, name=path.as_posix(), data=path.read_bytes()[: 8 * MB])

    return make


def _library() -> list[Path]:
    return [Path(sysconfig.get_path("stdlib"))]


def _packages() -> list[Path]:
    return [Path(sysconfig.get_path("purelib"))]


def _npm() -> list[Path]:
    npm = shutil.which("npm")
    found = [Path(npm).resolve().parents[1]] if npm else []
    return [*found, *(p for p in (Path("/usr/share/nodejs"),) if p.is_dir())]


# --- chats ---------------------------------------------------------------------------------


def _chat(chance: random.Random, traffic: Traffic) -> bytes:
    """One request to a model, as one of four providers takes it: text with code, logs, tools."""
    contents = [_content(chance, traffic) for _ in range(chance.randint(3, 9))]
    shape = chance.randrange(4)
    if shape == 0:
        body: object = {
            "model": "example-4", "stream": True, "user": identifier(chance),
            "messages": [
                {"role": "user" if n % 2 else "assistant", "content": text}
                for n, text in enumerate(contents)
            ],
        }  # fmt: skip
    elif shape == 1:
        body = {
            "model": "example-opus", "max_tokens": 8192,
            "metadata": {"user_id": hashlib.sha256(chance.randbytes(8)).hexdigest()},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": text}]} for text in contents
            ],
        }  # fmt: skip
    elif shape == 2:
        body = {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{
                        "id": f"call_{_alnum(chance, 24)}", "type": "function",
                        "function": {
                            "name": "write_file",
                            "arguments": json.dumps({"path": "src/a.py", "content": text}),
                        },
                    }],
                }
                for text in contents
            ],
        }  # fmt: skip
    else:
        body = {
            "contents": [{"parts": [{"text": text}]} for text in contents],
            "generationConfig": {"temperature": 0.2},
        }
    return json.dumps(body, ensure_ascii=bool(chance.randrange(2))).encode() + b"\n"


def _content(chance: random.Random, traffic: Traffic) -> str:
    kind = chance.choice(_CONTENTS)
    return f"{traffic.prose(chance.randint(10, 120))}\n```\n{kind(chance, traffic)}\n```"


def _real_code(chance: random.Random, _: Traffic) -> str:
    path = chance.choice(_library_files())
    text = path.read_text("utf-8", "replace")
    at = chance.randrange(max(1, len(text) - 3_000))
    return text[at : at + 3_000]


_files: list[Path] = []


def _library_files() -> list[Path]:
    if not _files:
        found = _library()[0].glob("*.py")
        _files.extend(sorted(path for path in found if "site-packages" not in path.parts))
    return _files


def _access_log(chance: random.Random, traffic: Traffic) -> str:
    return "\n".join(
        f"10.{chance.randrange(256)}.{chance.randrange(256)}.7 - - "
        f"[05/Jan/2026:10:{n % 60:02}:00 +0000] "
        f'"GET /{chance.choice(traffic.words)}?page={n}&cursor={_alnum(chance, 32)} HTTP/1.1" 200 '
        f'{chance.randrange(99_999)} "-" "Mozilla/5.0" {identifier(chance)}'
        for n in range(20)
    )


def _stack(chance: random.Random, traffic: Traffic) -> str:
    return "Traceback (most recent call last):\n" + "\n".join(
        f'  File "/app/{chance.choice(traffic.words)}.py", line {chance.randrange(900)}, in '
        f"{chance.choice(traffic.words)}\n    self._token = get_token({_hex(chance, 8)!r})"
        for _ in range(12)
    )


def _cluster(chance: random.Random, traffic: Traffic) -> str:
    return "\n".join(
        f"{chance.choice(traffic.words)}-{_hex(chance, 5)}-{_lower(chance, 5)}   1/1  Running  "
        f"registry.example/{chance.choice(traffic.words)}@sha256:{_hex(chance, 32)}"
        for _ in range(20)
    )


def _configuration(chance: random.Random, traffic: Traffic) -> str:
    word = chance.choice(traffic.words)
    return (
        f"apiVersion: v1\nkind: Deployment\nmetadata: {{name: {word}, uid: {identifier(chance)}}}\n"
        "spec:\n  env:\n"
        f"  - name: {word.upper()}_API_KEY\n    valueFrom:\n      secretKeyRef: {{name: {word}, "
        f"key: api-key}}\n  - name: DATABASE_URL\n    value: postgres://$(USER):$(PASSWORD)@db/x\n"
        f"  checksum/config: {_hex(chance, 32)}\n"
    )


def _diff(chance: random.Random, traffic: Traffic) -> str:
    return (
        f"commit {_hex(chance, 20)}\nindex {_hex(chance, 4)[:7]}..{_hex(chance, 4)[:7]} 100644\n"
        + "\n".join(f"{chance.choice('+- ')}{line}" for line in traffic.source(3).splitlines())
    )


def _shell(chance: random.Random, traffic: Traffic) -> str:
    return (
        f"$ docker pull {chance.choice(traffic.words)}\nDigest: sha256:{_hex(chance, 32)}\n"
        f"$ curl -H 'Authorization: Bearer $TOKEN' https://api.example.com/v1/{_hex(chance, 12)}\n"
        f"$ export GITHUB_TOKEN=$(gh auth token)\n$ sha1sum x\n{_hex(chance, 20)}  x\n"
        f'$ aws sts get-caller-identity\n{{"Arn": "arn:aws:iam::{chance.randrange(10**11, 10**12)}'
        f':role/{chance.choice(traffic.words)}"}}\n'
    )


def _data_url(chance: random.Random, _: Traffic) -> str:
    return "data:image/png;base64," + base64.b64encode(chance.randbytes(1_500)).decode()


_CONTENTS = (
    _real_code, _real_code, _real_code, _access_log, _stack, _cluster, _configuration, _diff,
    _shell, _data_url, lambda _, traffic: traffic.source(8),
)  # fmt: skip


# --- what looks like secrets and is none ---------------------------------------------------


def _hex(chance: random.Random, count: int) -> str:
    return chance.randbytes(count).hex()


def _alnum(chance: random.Random, count: int) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(chance.choices(letters, k=count))


def _lower(chance: random.Random, count: int) -> str:
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=count))


def _identifiers(chance: random.Random, traffic: Traffic) -> bytes:
    """Lines of identifiers, hashes and digests, bare and as values of fields."""
    values = (
        identifier(chance), _hex(chance, 16), _hex(chance, 20), _hex(chance, 32), _hex(chance, 64),
        base64.b64encode(chance.randbytes(32)).decode(), _alnum(chance, 22), _alnum(chance, 26),
        base64.urlsafe_b64encode(chance.randbytes(16)).decode().rstrip("="),
        f"sha512-{base64.b64encode(chance.randbytes(64)).decode()}", _lower(chance, 25),
        f"{chance.randrange(1 << 63)}", f"trace-{_hex(chance, 16)}-{_hex(chance, 8)}-01",
        f"W/{_hex(chance, 10)}", f"01{_alnum(chance, 24).upper()}",
        f"req_{_alnum(chance, 24)}", f"msg_{_alnum(chance, 24)}",
        f"call_{_alnum(chance, 24)}",
        f"cus_{_alnum(chance, 14)}", f"price_1{_alnum(chance, 23)}", f"i-{_hex(chance, 8)[:17]}",
        f"toolu_{_alnum(chance, 24)}", f"chatcmpl-{_alnum(chance, 29)}",
        f"projects/{chance.choice(traffic.words)}/locations/eu/keys/{_lower(chance, 20)}",
    )  # fmt: skip
    names = ("id", "etag", "key", "hash", "sha", "cursor", "next_page", "session", "request_id",
             "digest", "checksum", "uid", "idempotency_key", "parent")  # fmt: skip
    rows = []
    for value in values:
        rows.append(value)
        rows.append(json.dumps({chance.choice(names): value}))
        rows.append(f"{chance.choice(names)}={value}&page=2")
    return "\n".join(rows).encode() + b"\n"


def _lock(chance: random.Random, traffic: Traffic) -> bytes:
    """Entries as four package managers write them."""
    name, version = chance.choice(traffic.words), f"{chance.randrange(20)}.{chance.randrange(20)}.1"
    sri = base64.b64encode(chance.randbytes(64)).decode()
    file, place = f"{name}-{version}.tgz", f"{_hex(chance, 1)}/{_hex(chance, 30)}"
    return (
        f'"node_modules/{name}": {{"version": "{version}", "resolved": '
        f'"https://registry.example/{name}/-/{file}", "integrity": "sha512-{sri}"}},\n'
        f"{name}@^{version}:\n  version {version!r}\n  resolved "
        f'"https://registry.example/{file}#{_hex(chance, 20)}"\n'
        f'    {{ url = "https://files.example/{place}/{name}.whl", '
        f'hash = "sha256:{_hex(chance, 32)}", size = {chance.randrange(10**6)} }},\n'
        f"example.com/{name} v{version} h1:{base64.b64encode(chance.randbytes(32)).decode()}\n"
        f'checksum = "{_hex(chance, 32)}"\n'
    ).encode()


def _minified(chance: random.Random, traffic: Traffic) -> bytes:
    a, b, c = chance.choices(traffic.words, k=3)
    return (
        f"var {a[0]}={{{b}:function(e,t){{return e.{c}(t)||!0}},secret:null,apiKey:e.apiKey}},"
        f'n=[{len(a)},.5],token=r("{a}"),k="{_alnum(chance, chance.randint(4, 40))}";'
        f'!function(e){{var t={{}};t[{chance.randrange(9999)}]="{c}.{_hex(chance, 10)}.js"}}();'
    ).encode()


def _image(chance: random.Random, _: Traffic) -> bytes:
    data = base64.b64encode(chance.randbytes(chance.randrange(3_000, 90_000)))
    return b'{"image_url": "data:image/png;base64,' + data + b'"}\n'


def _random(chance: random.Random, _: Traffic) -> bytes:
    return zlib.compress(chance.randbytes(30_000)) + chance.randbytes(30_000)


JWT_EXAMPLES = (
    # RFC 7519 section 3.1, and the token that jwt.io shows, in two parts so that nothing
    # takes this file for a leak.
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAs"
    "DQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIi"
    "wiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
)

PLACEHOLDERS = (
    "AKIA" + "IOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY",
    "ghp_" + "x" * 36, "ghp_" + "X" * 36, "github_pat_" + "x" * 82, "glpat-" + "x" * 20,
    "sk-" + "x" * 48, "sk-ant-api03-...", "sk-proj-...", "sk_live_...", "sk_test_" + "x" * 24,
    "xoxb-" + "your-token-here", "xoxb-" + "0" * 12 + "-" + "0" * 12 + "-" + "x" * 24,
    "https://hooks.slack.com/services/T00000000/B00000000/" + "X" * 24,
    "AIza" + "x" * 35, "SG." + "x" * 22 + "." + "x" * 43, "npm_" + "x" * 36, "hf_" + "x" * 34,
    "<your-api-key>", "${GITHUB_TOKEN}", "{{ secrets.TOKEN }}", "YOUR_API_KEY", "changeme",
    "-----BEGIN PUBLIC KEY-----", "-----BEGIN CERTIFICATE-----", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
    "postgres://user:" + "password@localhost/db", "https://user:pass@example.com/",
    "Bearer <token>", "Authorization: Bearer $TOKEN", "password: ********", "dckr_pat_" + "x" * 27,
    "AccountKey=<key>;EndpointSuffix=core.windows.net", "pypi-" + "...", "dop_v1_" + "x" * 64,
    *JWT_EXAMPLES,
)  # fmt: skip


def _manual(chance: random.Random, traffic: Traffic) -> bytes:
    """Documentation that tells how to use keys, with the values that manuals print."""
    word, value = chance.choice(traffic.words), chance.choice(PLACEHOLDERS)
    return (
        f"## {word}\n\n{traffic.prose(40)}\n\n```sh\nexport {word.upper()}_TOKEN={value}\n"
        f"curl -H 'Authorization: Bearer {value}' https://api.{word}.example/\n```\n\n"
        f"```json\n{json.dumps({'api_key': value, 'name': word})}\n```\n"
        f'`client = Client(api_key="{value}")`\n'
    ).encode()


KINDS: dict[str, tuple[float, Make]] = {
    "chats": (22 * MB, _made("chats", _chat)),
    "python library": (16 * MB, _collected("python library", _library, ".py", ".txt", ".rst")),
    "packages": (
        22 * MB,
        _collected("packages", _packages, ".py", ".pyi", ".js", ".json", ".html", ".css", ".md"),
    ),
    "npm tree": (14 * MB, _collected("npm tree", _npm)),
    "binaries": (10 * MB, _collected("binaries", _packages, ".so", ".pyd", ".pyc", ".mo", ".ttf")),
    "lock files": (8 * MB, _made("lock files", _lock)),
    "minified": (6 * MB, _made("minified", _minified)),
    "images": (6 * MB, _made("images", _image)),
    "identifiers": (8 * MB, _made("identifiers", _identifiers)),
    "manuals": (3 * MB, _made("manuals", _manual)),
    "random": (6 * MB, _made("random", _random)),
    "streams": (6 * MB, _made("streams", agent_traffic.stream)),
    "notebooks": (6 * MB, _made("notebooks", agent_traffic.notebook)),
    "terminals": (3 * MB, _made("terminals", agent_traffic.terminal)),
    "changes": (5 * MB, _made("changes", agent_traffic.change)),
    "certificates": (8 * MB, _made("certificates", agent_traffic.certificate)),
    "manifests": (4 * MB, _made("manifests", agent_traffic.manifest)),
    "interfaces": (4 * MB, _made("interfaces", agent_traffic.interface)),
    "packed": (4 * MB, _made("packed", agent_traffic.packed)),
}

"""Each format of credentials gives its secrets and nothing else; no error shows what it read."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio

from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.config_secrets import Secrets
from aesp_proxy.daemon.control import FrameDecoder
from aesp_proxy.daemon.secret_formats import values_in
from aesp_proxy.daemon.secret_reading import keep_reading
from aesp_proxy.daemon.secret_registry import (
    Registry,
    entries_of,
    register_frames,
    registry_of,
    told,
)
from aesp_proxy.daemon.secret_sources import FILE_BYTES_MAX, Value, collect, from_source, source_of
from aesp_proxy.daemon.secret_watch import SourceWatch
from aesp_proxy.errors import ConfigError, InputError

V = "q9Zt4LmX0vKc7RbYw2NsD5hJ8gFp3TaUe6WiQo1"
PEM = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    + (V + "abc\n") * 5
    + "-----END OPENSSH PRIVATE KEY-----"
)


def basic(password: str) -> str:
    return base64.b64encode(f"me:{password}".encode()).decode()


FORMATS = {
    ".aws/credentials": (
        f"[default]\naws_access_key_id = AKIAX\naws_secret_access_key = {V}\nregion = x\n",
        {V},
    ),
    "w/.netrc": (
        f"# c\nmachine a.example login me password {V}\ndefault login x password y\n",
        {V, "y"},
    ),
    "w/.npmrc": (
        f"registry=https://r/\n//r.example/:_authToken={V}\n//s/:_auth={basic(V + '2')}\n",
        {V, basic(V + "2"), V + "2"},
    ),
    "w/.pypirc": (f"[pypi]\nusername = __token__\npassword = {V}\n", {V}),
    "w/.pgpass": (f"h:5432:db:me:{V}\\:x\n", {V + ":x"}),
    "w/.git-credentials": (f"https://me:{V}%21@git.example\n", {V + "%21", V + "!"}),
    ".docker/config.json": (
        json.dumps({"auths": {"r": {"auth": basic(V)}}, "credsStore": "desktop"}),
        {basic(V), V},
    ),
    "gh/hosts.yml": (f"github.com:\n    user: me\n    oauth_token: {V}\n", {V}),
    ".kube/config": (
        (
            "apiVersion: v1\nusers:\n- name: me\n"
            f"  user: {{token: {V}, client-key-data: {basic('k')}}}\n"
        ),
        {V, basic("k"), "me:k"},
    ),
    "w/key.json": (
        json.dumps(
            {
                "type": "service_account",
                "project_id": "p",
                "private_key": PEM,
                "private_key_id": V,
                "client_email": "a@b",
            }
        ),
        {PEM, V},
    ),
    ".ssh/id_ed25519": (PEM + "\n", {PEM}),
    "w/.env": (
        f"# c\nexport A='{V}'\nB=\"two\\nlines\"\nC=plain # comment\nD=\n=x\n",
        {V, "two\nlines", "plain"},
    ),
    "w/flat.json": (json.dumps({"DB": V, "N": "other"}), {V, "other"}),
    "w/list": (f"{V}\n\n  second-one  \n", {V, "second-one"}),
}


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_format_gives_its_secrets_and_nothing_else(name: str):
    text, wanted = FORMATS[name]
    assert {value.decode() for _, value in values_in(text.encode(), name)} == wanted


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w/a.json", '{"password": "' + V),
        (".kube/config", "users: [" + V),
        ("w/.netrc", 'password "' + V),
        ("w/a.ini", "[x\npassword=" + V),
        ("w/b", "\xff" + V),
        ("w/deep.json", '{"a":' * 100_000),
    ],
)
def test_a_broken_file_is_refused_without_a_word_of_it(name: str, text: str):
    with pytest.raises(ConfigError) as refused:
        values_in(text.encode("latin-1"), name)
    assert V not in str(refused.value)
    assert refused.value.__cause__ is None or V not in str(refused.value.__cause__)


def test_of_the_environment_names_decide_and_of_a_url_the_password():
    environ = {
        "GITHUB_TOKEN": V,
        "AWS_ACCESS_KEY_ID": "AKIA",
        "PATH": "/bin",
        "MONKEY": V,
        "SSH_AUTH_SOCK": "/s",
        "DATABASE_URL": f"postgres://u:{V}%40@h/db",
        "REDIS_URI": "redis://h",
        "lower_secret": V,
    }
    found = collect(Secrets(sources=""), environ=environ, home=None)
    assert {(one.name, one.value.decode()) for one in found} == {
        ("GITHUB_TOKEN", V),
        ("DATABASE_URL", V + "%40"),
        ("DATABASE_URL", V + "@"),
        ("lower_secret", V),
    }
    assert V not in repr(found)


def test_well_known_files_are_taken_where_they_are_and_passed_over_where_not(tmp_path: Path):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_rsa").write_text(PEM)
    (tmp_path / ".ssh/id_rsa.pub").write_text("ssh-rsa AAAA")
    (tmp_path / ".ssh/known_hosts").write_text("host ssh-rsa AAAA")
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube/config").write_text("users: [")
    (tmp_path / ".netrc").write_text(f"machine h login u password {V}")
    found = from_source("credentials", Secrets(), tmp_path)
    assert {(one.source, one.value.decode()) for one in found} == {
        ("~/.ssh/id_rsa", PEM),
        ("~/.netrc", V),
    }


BROKEN = {
    ".aws/credentials": (
        f"[default]\naws_access_key_id = AKIAX\n[default\naws_secret_access_key = {V}\n bad"
    ).encode(),
    ".kube/config": f"users:\n- user: {{token: 'x'\n  token: {V}\n".encode(),
    ".docker/config.json": f'{{"auths": {{"r": {{"identitytoken": "{V}",}}}}}}'.encode(),
    ".npmrc": b"\xff\n//r.example/:_authToken=" + V.encode(),
    ".netrc": f"machine a login 'me password {V}\n".encode(),
    ".git-credentials": b"\xfe\nhttps://me:" + V.encode() + b"@git.example\n",
    ".ssh/id_rsa": b"\xffnoise\n" + PEM.encode(),
    ".config/gcloud/application_default_credentials.json": (
        f'{{"client_email": "a@b", "refresh_token": "{V}"'
    ).encode(),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_of_a_broken_well_known_file_the_lines_are_taken_and_it_is_told(tmp_path: Path, name: str):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(BROKEN[name])
    broken: dict[str, str] = {"gone": "long ago"}
    found = from_source("credentials", Secrets(), tmp_path, broken)
    assert list(broken) == [f"~/{name}"]
    values = {one.value.decode() for one in found}
    assert (PEM if "ssh" in name else V) in values
    assert not values & {"AKIAX", "me", "a@b", "[default"}
    assert not any(V in text for text in broken.values())


def test_a_directory_or_a_giant_at_a_well_known_place_is_told(tmp_path: Path):
    (tmp_path / ".netrc").mkdir()
    (tmp_path / ".pypirc").write_bytes(b"x" * (FILE_BYTES_MAX + 1))
    (tmp_path / ".npmrc").symlink_to("nowhere")
    broken: dict[str, str] = {}
    assert from_source("credentials", Secrets(), tmp_path, broken) == []
    assert set(broken) == {"~/.netrc", "~/.npmrc", "~/.pypirc"}


def test_what_is_broken_at_the_start_is_said_once_with_what_is_found_in_it(tmp_path: Path):
    (tmp_path / ".netrc").write_bytes(BROKEN[".netrc"])
    (tmp_path / "state").mkdir(mode=0o700)
    said: list[str] = []
    registry = registry_of(
        Settings(state_dir=tmp_path / "state"), {"HOME": str(tmp_path)}, say=said.append
    )
    assert len(registry) == 1
    (line,) = [one for one in said if one.startswith("~/.netrc: ")]
    assert "does not hold to its format" in line
    assert V not in "".join(said)
    assert list(registry.broken) == ["~/.netrc"]


def test_a_mounted_directory_is_a_value_a_file(tmp_path: Path):
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data/token").write_text(V + "\n")
    (tmp_path / "token").symlink_to(tmp_path / "..data/token")
    (one,) = from_source(f"dir:{tmp_path}", Secrets(), None)
    assert (one.name, one.value.decode()) == ("token", V)


@pytest.mark.parametrize(
    "source",
    [
        "nonsense",
        "file:/none/such",
        "dir:/none",
        "exec:/none/such",
        "exec:false",
        "vault:a/b",
        "exec:echo {",
        "credentials:x",
        "file:",
    ],
)
def test_a_source_that_cannot_be_read_is_refused(source: str):
    with pytest.raises(ConfigError):
        from_source(source, Secrets(), None)


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ("app.env", "file:{here}/app.env"),
        ("/etc/app.env", "file:/etc/app.env"),
        ("file:app.env", "file:{here}/app.env"),
        ("dir:/run/secrets", "dir:/run/secrets"),
        ("dir:secrets", "dir:{here}/secrets"),
        ("./file:app.env", "file:{here}/file:app.env"),
        ("./credentials", "file:{here}/credentials"),
        ("a/dir:b", "file:{here}/a/dir:b"),
        ("with:colon", "file:{here}/with:colon"),
        ("vault:kv/app", "vault:kv/app"),
        ("exec:pass show a:b", "exec:pass show a:b"),
        ("credentials", "credentials"),
    ],
)
def test_an_argument_names_a_source_as_the_settings_do_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, source: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "with:colon").touch()
    assert source_of(given, "here") == source.format(here=tmp_path)


@pytest.mark.parametrize("given", ["", "file:", "dir:", "vault:", "exec:", "valut:kv/app", "env:A"])
def test_an_argument_that_names_nothing_is_refused_with_what_could_stand_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file:").touch()
    with pytest.raises(ConfigError, match=r"no source of secrets.*vault:MOUNT/PATH") as refused:
        source_of(given, "--secrets-from")
    assert refused.value.where == "--secrets-from"


def test_a_file_that_is_named_like_the_well_known_ones_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "credentials").touch()
    with pytest.raises(ConfigError, match=r"\./credentials is the file"):
        source_of("credentials", "--secrets-from")


def test_a_command_gives_lines_or_json_and_is_told_without_its_arguments(tmp_path: Path):
    script = tmp_path / "print"
    script.write_text(f"#!/bin/sh\necho \"A={V}\"\necho 'B=two words'\n")
    script.chmod(0o755)
    found = from_source(f"exec:{script} --key {V}", Secrets(), None)
    assert [(one.name, one.value.decode()) for one in found] == [("A", V), ("B", "two words")]
    assert all(V not in one.source for one in found)
    script.write_text('#!/bin/sh\necho "{\\"C\\": \\"' + V + '\\"}"\n')
    (one,) = from_source(f"exec:{script}", Secrets(), None)
    assert (one.name, one.value.decode()) == ("C", V)


class _Vault(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        right = (
            self.headers["X-Vault-Token"] == "vt" and self.headers["X-Vault-Namespace"] == "team"
        )
        data = {"data": {"data": {"db": V, "port": 5432}, "metadata": {}}}
        body = json.dumps(data if self.path == "/v1/kv/data/app/prod" else {"errors": [V]}).encode()
        self.send_response(200 if right else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Secrets]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Vault)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    (tmp_path / "token").write_text("vt\n")
    yield Secrets(
        vault_address=f"http://127.0.0.1:{server.server_port}",
        vault_token_file=tmp_path / "token",
        vault_namespace="team",
    )
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_vault_gives_the_keys_of_a_secret(vault: Secrets):
    found = from_source("vault:kv/app/prod", vault, None)
    assert [(one.name, one.value.decode()) for one in found] == [
        ("app/prod/db", V),
        ("app/prod/port", "5432"),
    ]


@pytest.mark.parametrize("path", ["kv/other", "kv"])
def test_what_a_vault_says_instead_is_not_shown(vault: Secrets, path: str):
    with pytest.raises(ConfigError) as refused:
        from_source(f"vault:{path}", vault, None)
    assert V not in str(refused.value)


def test_what_a_vault_says_is_not_opened_by_a_file_of_keys(
    vault: Secrets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    seen = []
    client = httpx.Client

    def spied(*, verify: ssl.SSLContext, **more: object) -> httpx.Client:
        seen.append(verify.keylog_filename)
        return client(verify=verify, **more)

    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    monkeypatch.setattr("httpx.Client", spied)
    from_source("vault:kv/app/prod", vault, None)
    assert seen == [None]


def test_a_registry_hands_over_hashes_that_are_the_same_entries():
    registry = Registry(b"k" * 32)
    values = [Value(name=f"V{n}", source="s", value=f"{V}{n}".encode()) for n in range(450)]
    added, refused = registry.add(
        [*values, values[0], Value(name="x", source="file:a", value=b"true")]
    )
    assert len(added) == len(registry) == 450
    frames = list(register_frames(added))
    assert V[:8].encode() not in b"".join(frames)
    decoded = [e for frame in FrameDecoder().feed(b"".join(frames)) for e in entries_of(frame)]
    assert decoded == added
    lines = told(added, refused)
    assert lines[0].startswith("registered 450 secret values, which may not leave: V0, V1")
    assert lines[1] == "not registered: x (file:a): shorter than 8 bytes"
    assert registry.forget("V3") == 1
    assert registry.forget("V3") == 0


@pytest.mark.parametrize(
    "entries", [None, [1], [["n", "s", "f", [1]]], [["n", "s", "f", [["", 1, 1, ["x"], b""]]]]]
)
def test_nonsense_registers_nothing(entries: object):
    with pytest.raises(InputError):
        entries_of({"type": "register", "entries": entries})


def test_sources_are_read_again_when_their_files_change(tmp_path: Path) -> None:
    env, keys, home = tmp_path / "app.env", tmp_path / "mounted", tmp_path / "home"
    env.write_text("APP_SECRET=one-77-aaaaaaaa\n")
    keys.mkdir()
    home.mkdir()
    watch = SourceWatch(Secrets(), home, (f"file:{env}", f"dir:{keys}", "exec:true"))
    assert watch.changed() == []
    env.write_text("APP_SECRET=two-77-bbbbbbbbbb\n")
    (keys / "db").write_text("mounted-88-secret")
    (home / ".netrc").write_text("machine h login me password netrc-99-secret\n")
    found = {one.value for one in watch.changed()}
    assert found == {b"two-77-bbbbbbbbbb", b"mounted-88-secret", b"netrc-99-secret"}
    assert watch.changed() == []


def test_a_source_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    env = tmp_path / "app.env"
    env.write_text("APP_SECRET=one-77-aaaaaaaa\n")
    watch = SourceWatch(Secrets(sources=""), None, (f"file:{env}",))
    env.unlink()
    assert watch.changed() == []
    assert str(env) in watch.unread[f"file:{env}"]
    env.write_text("APP_SECRET=two-77-bbbbbbbbbb\n")
    assert [one.value for one in watch.changed()] == [b"two-77-bbbbbbbbbb"]
    assert watch.unread == {}


def test_a_source_that_cannot_be_read_any_more_is_told_once(tmp_path: Path, monkeypatch) -> None:
    env = tmp_path / "app.env"
    env.write_text("APP_SECRET=one-77-aaaaaaaa\n")
    registry = Registry(b"k" * 32)
    registry.watch = SourceWatch(Secrets(sources=""), None, (f"file:{env}",))
    env.unlink()
    said: list[str] = []
    looks = iter(range(4))

    async def next_look(_: float) -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr("aesp_proxy.daemon.secret_reading.trio.sleep", next_look)

    async def give(_: object) -> None:
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        trio.run(keep_reading, registry, give, said.append)
    (line,) = said
    assert str(env) in line
    assert line.endswith("what is new in it is not looked for")

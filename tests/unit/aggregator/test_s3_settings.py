"""What stands of a bucket in stores.yaml is checked whole, and holds no secret."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from siem_lab import Said, receiving

from aesp_proxy.aggregator.store.s3_settings import KEYS, S3Settings, read_s3_settings
from aesp_proxy.decide.policy.document import parse_document
from aesp_proxy.errors import ConfigError

ENOUGH = "endpoint: https://s3.example.test, bucket: kept"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKEY", "AWS_SECRET_ACCESS_KEY": "s3cret"}


def read(text: str, root: Path = Path("/etc/x")) -> S3Settings:
    return read_s3_settings(parse_document(f"s3: {{{text}}}", "stores.yaml").get("s3"), root)


def test_every_setting_stands_on_its_page() -> None:
    page = (Path(__file__).parents[3] / "docs/object-store.md").read_text("utf-8")
    table = "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    assert [name for name in KEYS if f"`{name}`" not in table] == []


def test_endpoint_and_bucket_are_enough() -> None:
    assert read(ENOUGH) == S3Settings(endpoint="https://s3.example.test", bucket="kept")


def test_every_setting_can_be_given() -> None:
    settings = read(
        "endpoint: http://127.0.0.1:8000, bucket: kept, prefix: /a/b/, region: eu-west-1,"
        " lock_days: 365, lock_mode: GOVERNANCE, credentials: file, credentials_file: keys,"
        " profile: ship, ca_file: ca.pem, proxy: http://proxy:3128, addressing: virtual,"
        " connect_s_max: 1, answer_s_max: 2.5, put_s_max: 30"
    )
    assert dataclasses.asdict(settings).keys() == KEYS.keys()
    assert settings.prefix == "a/b/"
    assert (settings.lock_days, settings.lock_mode) == (365, "GOVERNANCE")
    assert settings.credentials_file == Path("/etc/x/keys")
    assert settings.ca_file == Path("/etc/x/ca.pem")
    assert settings.answer_s_max == 2.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bucket: kept", "endpoint is missing"),
        ("endpoint: https://s3.example.test", "bucket is missing"),
        (f"{ENOUGH}, secret: x", "'secret' is not a setting"),
        ("endpoint: http://s3.example.test, bucket: kept", "must be https"),
        ("endpoint: 'https://s3.example.test/path', bucket: kept", "no more"),
        ("endpoint: 'https://a:b@s3.example.test', bucket: kept", "no password"),
        ("endpoint: 'https://s3.example.test:x', bucket: kept", "no address"),
        ("endpoint: s3.example.test, bucket: kept", "endpoint"),
        ("endpoint: https://s3.example.test, bucket: '../x'", "bucket"),
        ("endpoint: https://s3.example.test, bucket: Kept", "bucket"),
        (f"{ENOUGH}, prefix: a/../b", "prefix"),
        (f"{ENOUGH}, prefix: 'a b'", "prefix"),
        (f"{ENOUGH}, lock_days: -1", "lock_days"),
        (f"{ENOUGH}, lock_days: 1.5", "lock_days"),
        (f"{ENOUGH}, lock_days: 99999", "lock_days"),
        (f"{ENOUGH}, lock_mode: compliance", "lock_mode"),
        (f"{ENOUGH}, credentials: magic", "credentials"),
        (f"{ENOUGH}, credentials: file", "credentials_file"),
        (f"{ENOUGH}, credentials_file: keys", "credentials_file"),
        (f"{ENOUGH}, proxy: 'http://user:pw@proxy:1'", "no password"),
        (f"{ENOUGH}, proxy: socks5://proxy:1", "proxy"),
        (f"{ENOUGH}, answer_s_max: 0", "answer_s_max"),
        (f"{ENOUGH}, put_s_max: nan", "put_s_max"),
        (f"{ENOUGH}, bucket: [a]", "bucket"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, says: str) -> None:
    if text.count("bucket") == 2:
        text = text.replace("bucket: kept, ", "", 1)
    with pytest.raises(ConfigError, match=says) as refused:
        read(text)
    assert "stores.yaml:1:" in refused.value.where


@pytest.mark.parametrize("text", ["s3: x", "s3: [a]", "s3: "])
def test_s3_is_a_map(text: str) -> None:
    with pytest.raises(ConfigError):
        read_s3_settings(parse_document(text, "stores.yaml").get("s3"), Path())


class TestCredentials:
    """They come from where the settings say, and go into no message."""

    @pytest.fixture
    def settings(self) -> S3Settings:
        return read("endpoint: http://127.0.0.1:1, bucket: kept")

    @pytest.mark.parametrize("missing", list(ENVIRONMENT))
    def test_without_them_nothing_is_begun(self, settings: S3Settings, missing: str) -> None:
        from aesp_proxy.aggregator.store.s3_client import make_client

        with pytest.raises(ConfigError, match="no credentials") as refused:
            make_client(settings, {**ENVIRONMENT, missing: " "})
        assert "s3cret" not in str(refused.value)

    @pytest.mark.parametrize(
        ("content", "mode", "says"),
        [
            ("[other]\naws_access_key_id = A\naws_secret_access_key = s3cret\n", 0o600, "section"),
            ("[default]\naws_access_key_id = A\n", 0o600, "no credentials"),
            ("s3cret\n", 0o600, "shared form"),
            ("[default]\n[default]\ns3cret", 0o600, "shared form"),
            ("[default]\naws_secret_access_key = \xff", 0o600, "shared form"),
            ("[default]\naws_access_key_id = A\naws_secret_access_key = s3cret\n", 0o640, "others"),
        ],
        ids=["section", "half", "no-form", "twice", "bytes", "mode"],
    )
    def test_a_file_that_cannot_be_used_is_named_and_not_shown(
        self, tmp_path: Path, content: str, mode: int, says: str
    ) -> None:
        from aesp_proxy.aggregator.store.s3_client import make_client

        file = tmp_path / "keys"
        file.write_bytes(content.encode("latin-1"))
        file.chmod(mode)
        settings = read(
            "endpoint: http://127.0.0.1:1, bucket: kept, credentials: file, credentials_file: keys",
            tmp_path,
        )
        with pytest.raises(ConfigError, match=says) as refused:
            make_client(settings, ENVIRONMENT)
        told = f"{refused.value} {refused.value.__cause__} {refused.value.__suppress_context__}"
        assert "s3cret" not in told

    def test_a_file_is_read_by_its_section(self, tmp_path: Path) -> None:
        from aesp_proxy.aggregator.store.s3_client import make_client

        file = tmp_path / "keys"
        file.write_text(
            "[default]\naws_access_key_id=NO\naws_secret_access_key=no\n"
            "[ship]\naws_access_key_id = AK%Y\naws_secret_access_key = s%3cret=\n"
        )
        file.chmod(0o600)
        settings = read(
            "endpoint: http://127.0.0.1:1, bucket: kept, credentials: file,"
            " credentials_file: keys, profile: ship",
            tmp_path,
        )
        client = make_client(settings, {})
        found = client._request_signer._credentials
        assert (found.access_key, found.secret_key) == ("AK%Y", "s%3cret=")
        client.close()
        assert "s%3cret" not in repr(settings)

    def test_a_machine_is_asked_for_its_own_and_no_home_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from aesp_proxy.aggregator.store.s3_client import make_client

        home = tmp_path / ".aws"
        home.mkdir()
        for name in ("credentials", "config"):
            (home / name).write_text(
                "[default]\naws_access_key_id=HOME\naws_secret_access_key=home\n"
            )
        for name in (*ENVIRONMENT, "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        given = {
            "AccessKeyId": "MACHINE",
            "SecretAccessKey": "s3cret",
            "Token": "t",
            "Expiration": "2099-01-01T00:00:00Z",
        }
        with receiving(lambda _: Said(200, given)) as machine:
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{machine.url}/creds")
            client = make_client(
                read("endpoint: http://127.0.0.1:1, bucket: kept, credentials: instance"), {}
            )
            found = client._request_signer._credentials.get_frozen_credentials()
            client.close()
        assert (found.access_key, found.secret_key, found.token) == ("MACHINE", "s3cret", "t")

"""botocore's one home: a client that reaches one bucket and nothing else, and its errors in ours.

Rules: what it asks is said in ``stores.yaml`` and nowhere else: no settings, endpoint or
proxy of the environment; every wait is bounded; a message holds words of ours, never the
server's text (which repeats what was signed) and never a credential. Needs the extra ``s3``.
Source: https://botocore.amazonaws.com/v1/documentation/api/latest/reference/config.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.
"""

from __future__ import annotations

import os
from configparser import ConfigParser
from configparser import Error as FormError
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aesp_proxy import keys
from aesp_proxy.errors import ConfigError, UnavailableError

try:
    import botocore.loaders
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,  # noqa: A004 - its name there
        ConnectTimeoutError,
        CredentialRetrievalError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
        ReadTimeoutError,
        SSLError,
    )
except ModuleNotFoundError as missing:
    raise ConfigError(
        "objects in S3 need the library botocore", remedy="install aesp-proxy[s3]"
    ) from missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aesp_proxy.aggregator.store.s3_settings import S3Settings

FAULTS: Final = (BotoCoreError, ClientError)
"""What every call may raise; :func:`say` puts it into our words."""
TRIES_MAX: Final = 2
_NOTHING: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""Only what stands in stores.yaml counts: no profile and no file of a home directory."""
_DISTRUST: Final = ("CERTIFICATE_VERIFY_FAILED", "doesn't match")
"""What OpenSSL and urllib3 say of a certificate that is not believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What went wrong: a word for counters, a sentence, what to do; ``passing`` may pass."""

    word: str
    text: str
    remedy: str = ""
    passing: bool = False


_CODES: Final = {
    "NoSuchKey": Said(word="missing", text="is not there"),
    "NoSuchBucket": Said(
        word="bucket", text="there is no such bucket", remedy="make it, or check bucket"
    ),
    "AccessDenied": Said(
        word="denied", text="these credentials may not do that", remedy="check the bucket's policy"
    ),
    "InvalidAccessKeyId": Said(
        word="credentials", text="the access key is unknown there", remedy="check credentials"
    ),
    "SignatureDoesNotMatch": Said(
        word="credentials", text="the secret key is not that one", remedy="check credentials"
    ),
    "ExpiredToken": Said(
        word="credentials", text="the session token has expired", remedy="give new credentials"
    ),
    "RequestTimeTooSkewed": Said(
        word="clock", text="the clocks differ by more than it accepts", remedy="set the clock"
    ),
    "QuotaExceeded": Said(word="full", text="the bucket is full", remedy="raise its quota"),
    "BadDigest": Said(word="changed", text="the bytes were changed on the way", passing=True),
    "SlowDown": Said(word="busy", text="asks for fewer requests", passing=True),
    "InvalidRequest": Said(
        word="refused",
        text="refuses the request",
        remedy="with lock_days, the bucket must have been made with Object Lock",
    ),
}


def make_client(settings: S3Settings, environment: Mapping[str, str]) -> Any:  # noqa: ANN401 - made at run time
    """Make a client of one bucket.

    ConfigError when credentials or roots cannot be read, UnavailableError when the machine is
    not given its credentials now.
    """
    session = botocore.session.Session(session_vars=_NOTHING)
    session.register_component("data_loader", _descriptions())
    given = _credentials(settings, environment)
    if settings.ca_file is not None:
        keys.read_bounded(settings.ca_file)
    config = Config(
        s3={"addressing_style": settings.addressing},
        signature_version="s3v4",
        connect_timeout=settings.connect_s_max,
        read_timeout=settings.answer_s_max,
        retries={"mode": "standard", "total_max_attempts": TRIES_MAX},
        max_pool_connections=32,
        proxies={"http": settings.proxy, "https": settings.proxy} if settings.proxy else {},
        # Ceph's gateway does not know the newer checksums; Content-MD5 is sent instead.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        ignore_configured_endpoint_urls=True,
        tcp_keepalive=True,
    )
    try:
        return session.create_client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region,
            verify=str(settings.ca_file) if settings.ca_file else True,
            config=config,
            **given,
        )
    except CredentialRetrievalError as error:
        raise UnavailableError(
            "this machine is not given its credentials now", where=settings.where
        ) from error
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            "cannot be used", where=settings.where, remedy="check endpoint, region and credentials"
        ) from error


@cache
def _descriptions() -> Any:  # noqa: ANN401 - as above
    """Read what botocore knows of services once a process: it takes a tenth of a second."""
    return botocore.loaders.Loader(include_default_search_paths=True)


def _credentials(settings: S3Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the client signs with; nothing, where the machine is asked for it."""
    if settings.credentials == "instance":
        return {}
    if settings.credentials_file is not None:
        found = _from_file(settings)
    else:
        found = {name: environment.get(name.upper(), "") for name in _NAMES}
    access_key, secret_key, token = (found[name].strip() for name in _NAMES)
    if not access_key or not secret_key:
        raise ConfigError(
            "no credentials are given for it",
            where=settings.where,
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or credentials_file",
        )
    given = {"aws_access_key_id": access_key, "aws_secret_access_key": secret_key}
    return given | ({"aws_session_token": token} if token else {})


_NAMES: Final = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def _from_file(settings: S3Settings) -> dict[str, str]:
    path = settings.credentials_file
    if path is None:
        return dict.fromkeys(_NAMES, "")
    parser = ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(keys.read_private(path).decode("utf-8"))
        section = parser[settings.profile]
    except (FormError, UnicodeDecodeError):
        # Its text is not repeated: the line that is wrong may be the secret.
        raise ConfigError("is not in AWS's shared form", where=str(path)) from None
    except KeyError:
        raise ConfigError(f"has no section [{settings.profile}]", where=str(path)) from None
    return {name: section.get(name, "") for name in _NAMES}


def say(error: Exception) -> Said:
    """Put a fault of a call into our words; nothing of the server's text is in them."""
    if isinstance(error, ClientError):
        return _say_answer(error)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return Said(word="credentials", text="this machine is given no credentials")
    if isinstance(error, SSLError) and any(word in str(error) for word in _DISTRUST):
        return Said(
            word="tls",
            text="its certificate is not trusted, or is for another name",
            remedy="check endpoint and ca_file",
        )
    if isinstance(error, SSLError):
        return Said(word="tls", text="cannot be spoken to over TLS", passing=True)
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return Said(word="late", text="did not answer in time", passing=True)
    if isinstance(error, ConnectionError):
        return Said(word="unreachable", text="cannot be reached", passing=True)
    if isinstance(error, HTTPClientError):
        return Said(word="cut", text="the answer was cut off", passing=True)
    return Said(word="failed", text="gave no whole answer", passing=True)


def _say_answer(error: ClientError) -> Said:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in _CODES:
        return _CODES[code]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = f"answers {int(status)}"
    if status == 404:
        # Without the code it may be anybody's: an answer to HEAD, or a proxy's page.
        return Said(word="not_found", text="answers 404", passing=True)
    if status == 403:
        return _CODES["AccessDenied"]
    return Said(word="answer", text=text, passing=status >= 500 or status == 429)

"""Batches as objects of one S3 bucket: the ``ObjectStore`` that several aggregators share.

Rules: what :meth:`S3Objects.put_all` has returned for, the store has answered 200 for with
the MD5 of the very bytes; uniqueness never hangs on the store, because ``If-None-Match`` is
ignored by some (Ceph's gateway, where versions are kept).

**A batch's key carries the hash of its header.** Two aggregators that hold two histories of
one host write two keys, whatever is late, cut off or repeated between them, and the row of
the ledger says which is the record; the same batch written twice is the same bytes. (The
version's id in the row would say it too, but is known only after the put, is lost with a
cut-off answer, and is nothing on a bucket without versions.) What a crash leaves behind
stands in nobody's way, so nothing is ever removed.

With Object Lock an overwrite is a new version and a removal a marker. So when the newest
version of a batch is not what its key says, or is hidden by a marker, an older one that is
gets read: who stole the credentials can hide nothing.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html.
"""

from __future__ import annotations

import random
import time
from base64 import b64encode
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import md5, sha256
from typing import TYPE_CHECKING, Any, Final

import structlog

from aesp_proxy.aggregator.store.s3_client import FAULTS, Said, make_client, say
from aesp_proxy.errors import ConfigError, RecordError, UnavailableError
from aesp_proxy.record.batch import Limits, decode_batch
from aesp_proxy.record.faults import ChainError
from aesp_proxy.record.header import decode_header, header_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from aesp_proxy.aggregator.store.s3_settings import S3Settings

KEPT: Final = ("batches/", "evidence/")
"""What is never written again under its name, and is locked; the log's files are not."""
PUT_THREADS: Final = 16
OBJECT_BYTES_MAX: Final = 2 * Limits().batch_bytes_max
CLOCK_S_MAX: Final = 300.0
VERSIONS_MAX: Final = 100
PAUSE_FIRST_S: Final = 0.25
PAUSE_S_MAX: Final = 10.0
PROBE: Final = "probe"
_PROBE_BYTES: Final = b"aesp-proxy: may this aggregator write, read and lock here?\n"
_KEY_TYPES: Final = {"AES256", ""}

log = structlog.get_logger(__name__)


class S3Objects:
    """Objects under ``settings.prefix`` of one bucket, by the same keys as in a directory."""

    by_hash = True

    def __init__(
        self,
        settings: S3Settings,
        *,
        environment: Mapping[str, str],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._wall = settings, wall
        self._client = make_client(settings, environment)
        self._pool = ThreadPoolExecutor(max_workers=PUT_THREADS, thread_name_prefix="object-put")
        self._pause = _Pause()

    def put_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Store every (key, content), all or a RecordError that says why, in bounded time.

        A batch that was on its way when another failed may still arrive, under a key that
        only the same bytes have.
        """
        self._pause.check(self._settings.where)
        futures = [self._pool.submit(self._put, *item) for item in objects]
        said = self._fault_of(futures)
        if said is None:
            self._pause.succeeded()
            return
        if not all(key.startswith(KEPT) for key, _ in objects):
            wait(futures)  # what may be written again must not be written late
        self._pause.failed(said)
        raise RecordError(
            f"cannot store a batch: {said.text}",
            where=self._settings.where,
            remedy=said.remedy or "hosts keep it and send it again",
        )

    def get(self, key: str) -> bytes:
        """Return the content of ``key``.

        RecordError when it is not there or is not what its key says; UnavailableError when
        the store cannot say that now.
        """
        content = self.find(key)
        if content is None:
            raise RecordError("is not there", where=self._where(key))
        return content

    def find(self, key: str) -> bytes | None:
        """Return the content of ``key``, None when there is none; errors as :meth:`get`."""
        content = self._read(key)
        if content is not None and _is_named(key, content):
            return content
        for version in self._versions(key) if _hash_in(key) else ():
            older = self._read(key, version)
            if older is not None and _is_named(key, older):
                log.warning("object_was_hidden", key=key, version=version)
                return older
        if content is None:
            return None
        raise RecordError("is not the batch that its name says", where=self._where(key))

    def remove_all(self, keys: Sequence[str]) -> int:
        """Delete what is there of ``keys``; return how many were.

        RecordError for batches and evidence, where they are locked.
        """
        if self._settings.lock_days and any(key.startswith(KEPT) for key in keys):
            raise RecordError(
                f"nothing is removed for {self._settings.lock_days} days (Object Lock)",
                where=self._settings.where,
            )
        removed = 0
        for key in keys:
            if self._ask(self._client.head_object, key) is None:
                continue
            self._ask(self._client.delete_object, key)
            removed += 1
        return removed

    def close(self) -> None:
        """End the threads, after what is on its way, and the connections."""
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def check(self) -> None:
        """Write, lock, read and miss an object, and compare clocks.

        ConfigError for what the operator must mend, UnavailableError when the store is not
        there now. A server that says yes to a lock and sets none is found.
        """
        key = PROBE
        days = min(self._settings.lock_days, 1)
        self._checked(self._client.put_object, key, **self._put_options(_PROBE_BYTES, days=days))
        head = self._checked(self._client.head_object, key)
        self._check_clock(head)
        if self._settings.lock_days and not _locked_until(head, self._settings.lock_mode):
            raise ConfigError(
                "takes objects and locks none",
                where=self._settings.where,
                remedy="make the bucket with Object Lock, or take lock_days away",
            )
        if self._checked(self._client.head_object, f"{PROBE}-absent") is not None:
            raise ConfigError("has every object that is asked for", where=self._settings.where)

    def _fault_of(self, futures: Sequence[Future[None]]) -> Said | None:
        """Wait for all, for the first that fails, or as long as may be; what failed."""
        done, waiting = wait(futures, timeout=self._settings.put_s_max, return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
        late = Said(word="late", text="did not take them in time", passing=True)
        return _first_fault(done) or (late if waiting else None)

    def _put(self, key: str, content: bytes) -> None:
        days = self._settings.lock_days if key.startswith(KEPT) else 0
        options = self._put_options(content, days=days)
        answer = self._client.put_object(**self._place(key), **options)
        tag = str(answer.get("ETag", "")).strip('"')
        # With a key of a key service the tag is not the MD5; Content-MD5 was checked there.
        is_digest = answer.get("ServerSideEncryption", "") in _KEY_TYPES
        if not tag or (is_digest and tag != md5(content, usedforsecurity=False).hexdigest()):
            raise _NotStoredError

    def _put_options(self, content: bytes, *, days: int) -> dict[str, Any]:
        digest = md5(content, usedforsecurity=False).digest()
        options: dict[str, Any] = {
            "Body": content,
            "ContentMD5": b64encode(digest).decode("ascii"),
            "ContentType": "application/octet-stream",
        }
        if days:
            options["ObjectLockMode"] = self._settings.lock_mode
            options["ObjectLockRetainUntilDate"] = self._now() + timedelta(days=days)
        return options

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)

    def _place(self, key: str) -> dict[str, str]:
        if {"", ".", ".."} & set(key.split("/")):
            raise RecordError("is not a key of this store", where=repr(key))
        return {"Bucket": self._settings.bucket, "Key": self._settings.prefix + key}

    def _where(self, key: str) -> str:
        return f"{self._settings.where}/{self._settings.prefix}{key}"

    def _read(self, key: str, version: str = "") -> bytes | None:
        """Return the content of an object or of one version; None when it is not there."""
        options = {"VersionId": version} if version else {}
        answer = self._ask(self._client.get_object, key, **options)
        if answer is None:
            return None
        if answer["ContentLength"] > OBJECT_BYTES_MAX:
            answer["Body"].close()
            raise RecordError("is larger than any batch", where=self._where(key))
        try:
            content: bytes = answer["Body"].read()
        except FAULTS as error:
            raise self._unavailable(key, say(error)) from None
        if len(content) != answer["ContentLength"]:
            raise self._unavailable(key, Said(word="cut", text="the answer was cut off"))
        return content

    def _versions(self, key: str) -> Iterator[str]:
        """Yield the ids of the versions of one key, newest first, a bounded number."""
        place = self._place(key)
        try:
            answer = self._client.list_object_versions(
                Bucket=place["Bucket"], Prefix=place["Key"], MaxKeys=VERSIONS_MAX
            )
        except FAULTS as error:
            raise self._unavailable(key, say(error)) from None
        for version in answer.get("Versions", ()):
            if version["Key"] == place["Key"] and version["VersionId"] != "null":
                yield version["VersionId"]

    def _ask(self, call: Callable[..., Any], key: str, **options: Any) -> Any:  # noqa: ANN401 - botocore's
        """Call; None when there is no such object, UnavailableError for all else that fails."""
        try:
            return call(**self._place(key), **options)
        except FAULTS as error:
            said = say(error)
            if said.word == "missing" or (said.word, call) == (
                "not_found",
                self._client.head_object,
            ):
                return None
            raise self._unavailable(key, said) from None

    def _unavailable(self, key: str, said: Said) -> UnavailableError:
        return UnavailableError(said.text, where=self._where(key), remedy=said.remedy)

    def _checked(self, call: Callable[..., Any], key: str, **options: Any) -> Any:  # noqa: ANN401 - as above
        try:
            return call(**self._place(key), **options)
        except FAULTS as error:
            said = say(error)
            if said.word in {"missing", "not_found"}:
                return self._bucket_or_nothing()
            kind = UnavailableError if said.passing else ConfigError
            raise kind(said.text, where=self._settings.where, remedy=said.remedy) from None

    def _bucket_or_nothing(self) -> None:
        """Say whether what was missing was the bucket: an answer to HEAD does not."""
        try:
            self._client.head_bucket(Bucket=self._settings.bucket)
        except FAULTS as error:
            said = say(error)
            text = "there is no such bucket" if said.word == "not_found" else said.text
            raise ConfigError(text, where=self._settings.where, remedy="make it") from None

    def _check_clock(self, head: Mapping[str, Any]) -> None:
        said = head["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            there = parsedate_to_datetime(said)
        except ValueError:
            return
        apart_s = abs((there - self._now()).total_seconds())
        if apart_s > CLOCK_S_MAX:
            raise ConfigError(
                f"its clock and ours are {apart_s:.0f} s apart",
                where=self._settings.where,
                remedy="set the clock: locks would end at another time than is meant",
            )


class _NotStoredError(Exception):
    """The store answered 200 and something else than the MD5 of what was sent."""


class _Pause:
    """Whether to ask at all: after failures that may pass, not for a while that grows.

    So hosts are told to wait at once instead of each waiting for a store that is down.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._until_s = 0.0
        self._text = ""

    def check(self, where: str) -> None:
        """RecordError while the pause lasts."""
        if time.monotonic() < self._until_s:
            raise RecordError(
                f"cannot store a batch: the store {self._text}, and is asked again shortly",
                where=where,
                remedy="hosts keep it and send it again",
            )

    def failed(self, said: Said) -> None:
        """Begin a pause; full jitter, so that several aggregators do not come at once."""
        self._text = said.text
        highest_s = min(PAUSE_S_MAX, PAUSE_FIRST_S * 2 ** min(self._failures, 16))
        self._failures += 1
        # Nothing secret hangs on it.
        self._until_s = time.monotonic() + highest_s * random.random()  # noqa: S311

    def succeeded(self) -> None:
        """End it."""
        self._failures, self._until_s = 0, 0.0


def _first_fault(done: set[Future[None]]) -> Said | None:
    for future in done:
        error = future.exception()
        if isinstance(error, FAULTS):
            return say(error)
        if isinstance(error, _NotStoredError):
            return Said(word="changed", text="it stored other bytes than were sent", passing=True)
        if error is not None:
            raise error
    return None


def _hash_in(key: str) -> str:
    """Return the header's hash (hex) that a batch's key carries; empty in other keys."""
    folder, _, name = key.rpartition("/")
    named = name.removesuffix(".batch").partition("-")[2]
    return named if folder.startswith("batches/") else ""


def _is_named(key: str, content: bytes) -> bool:
    """Whether a batch is the one that its key names; true of keys that name none."""
    named = _hash_in(key)
    if not named:
        return True
    try:
        sealed = decode_batch(content)
        header = decode_header(sealed.header_bytes)
    except ChainError:
        return False
    is_header = header_hash(sealed.header_bytes).hex() == named
    return is_header and sha256(sealed.body).digest() == header.body_hash


def _locked_until(head: Mapping[str, Any] | None, mode: str) -> bool:
    return (
        head is not None
        and head.get("ObjectLockMode") == mode
        and head.get("ObjectLockRetainUntilDate") is not None
    )

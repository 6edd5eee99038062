"""Tell whether a request signs or hashes its body: then not a byte of it may be changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_HASHES: Final = frozenset((
    b"content-md5",  # RFC 1864
    b"digest",  # RFC 3230
    b"content-digest", b"repr-digest",  # RFC 9530
    b"signature", b"signature-input",  # RFC 9421
    b"x-goog-hash", b"x-ms-content-sha256", b"x-ms-blob-content-md5", b"x-amz-trailer",
    b"x-bz-content-sha1", b"x-hub-signature", b"x-hub-signature-256", b"x-signature",
))  # fmt: skip
_AMZ_HASH: Final = b"x-amz-content-sha256"
_AMZ_CHECKSUM: Final = b"x-amz-checksum-"
_UNSIGNED: Final = b"UNSIGNED-PAYLOAD"  # Amazon's Signature Version 4: the body is not signed
_SIGNATURES: Final = (b"AWS4-", b"Signature ", b"HMAC", b"SharedKey", b"OSS4-", b"Credential=")


def signed_by(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """Return the field that signs or hashes the body, empty where none does."""
    fields = {name.lower(): value for name, value in headers}
    for name, value in fields.items():
        if name in _HASHES or name.startswith(_AMZ_CHECKSUM):
            return name.decode("latin-1")
        if name == b"authorization" and value.startswith(_SIGNATURES):
            if value.startswith(b"AWS4-") and fields.get(_AMZ_HASH) == _UNSIGNED:
                continue
            return "authorization"
    if fields.get(_AMZ_HASH, _UNSIGNED) != _UNSIGNED:
        return _AMZ_HASH.decode("latin-1")
    return ""

"""Structure that a token must have when it is decoded: JSON, keys, accounts, words.

Each function takes the whole secret. What cannot be decoded as its format says is not
such a token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from aesp_proxy.decide.secrets.bip39_words import BIP39_INDEX

_BASE32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_KEY_64_BYTES = 64
_KEY_64_CHARS = 88
_DER_SEQUENCE = 0x30
_MNEMONIC_WORDS = (12, 15, 18, 21, 24)
_WORD_BITS = 11
_ACCOUNTS_MAX = 10**12
_AWS_ID_CHARS = 20
_ACCOUNT_CHARS = 32
_AWS_BEFORE_2019 = b"IJ"
_OPENSSH = b"openssh-key-v1\0"


def jwt(value: bytes) -> bool:
    """A header of a JSON Web Token or encryption: base64url of an object with ``alg``."""
    header = _decoded(value.partition(b".")[0])
    if header is None:
        return False
    try:
        found = json.loads(header)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("alg"), str)


def base64_json(value: bytes) -> bool:
    """Base64 of JSON behind the last prefix that ends in ``_``: it begins ``{"``."""
    start = value.find(b"eyJ")
    return start >= 0 and (_decoded(value[start : start + 8]) or b"").startswith(b'{"')


def cloudflare_tunnel(value: bytes) -> bool:
    """Base64 of the object that a Cloudflare Tunnel runs by: account, tunnel and secret.

    Source: cloudflared, ``connection.TunnelToken``.
    """
    try:
        found = json.loads(base64.b64decode(value, validate=True))
    except (ValueError, RecursionError):
        return False
    account = found.get("a") if isinstance(found, dict) else None
    return isinstance(account, str) and len(account) == _ACCOUNT_CHARS and {"t", "s"} <= set(found)


def base64_key_64(value: bytes) -> bool:
    """Base64 of exactly 64 bytes, written as an encoder writes it (Azure's account keys)."""
    if len(value) != _KEY_64_CHARS:
        return False
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(raw) == _KEY_64_BYTES and base64.b64encode(raw) == value


def aws_key_id(value: bytes) -> bool:
    """An AWS access key id whose account, in base 32, has twelve digits.

    Ids from before 2019 (``I`` or ``J`` in fifth place) hold no account and pass.
    Source: "AWS Access Key ID formats", Aidan Steele; AWS, "GetAccessKeyInfo".
    """
    if len(value) != _AWS_ID_CHARS or value[4] in _AWS_BEFORE_2019:
        return len(value) == _AWS_ID_CHARS
    account = aws_account(value)
    return account is not None and account < _ACCOUNTS_MAX


def aws_account(value: bytes) -> int | None:
    """Return the number of the account that an access key id names, None when it names none."""
    number = 0
    for byte in value[4:_AWS_ID_CHARS]:
        digit = _BASE32.find(byte)
        if digit < 0:
            return None
        number = number << 5 | digit
    return number >> 39 & (1 << 40) - 1


def der_or_openssh(value: bytes) -> bool:
    """The first characters of a private key: a DER sequence, or OpenSSH's magic, in base64."""
    line = b"".join(value.replace(b"\\r", b"").replace(b"\\n", b"").split())
    raw = _decoded(line[: len(line) // 4 * 4])
    return raw is None or raw[:1] == bytes([_DER_SEQUENCE]) or _OPENSSH.startswith(raw[:14])


def bip39(value: bytes) -> bool:
    """Twelve to 24 English words whose last bits are a check sum (BIP 39)."""
    words = value.split()
    if len(words) not in _MNEMONIC_WORDS:
        return False
    bits = 0
    for word in words:
        index = BIP39_INDEX.get(word)
        if index is None:
            return False
        bits = bits << _WORD_BITS | index
    check_bits = len(words) // 3
    entropy = (bits >> check_bits).to_bytes(check_bits * 4, "big")
    check = hashlib.sha256(entropy).digest()[0] >> (8 - check_bits)
    return bits & (1 << check_bits) - 1 == check


def _decoded(text: bytes) -> bytes | None:
    """Return base64 or base64url, padded or not, decoded; None when it is neither."""
    try:
        standard = text.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        return base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None

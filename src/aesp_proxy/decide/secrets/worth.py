"""Say whether a value is worth looking for: what honest traffic says anyway is not.

Rules:

- A value that is no secret by its looks is refused with a reason, so that ``true`` or
  ``localhost`` never stops an agent. The reason tells nothing of the value.
- When in doubt it is taken: a value that is refused is a leak that nobody sees.
"""

from __future__ import annotations

from typing import Final

from aesp_proxy.decide.secrets.measure import entropy

VALUE_BYTES_MIN: Final = 8
VALUE_BYTES_MAX: Final = 1 << 16
NUMBER_DIGITS_MIN: Final = 12
WORD_BYTES_MIN: Final = 16
ENTROPY_MIN: Final = 2.2
"""Bits a byte: ``aaaaaaaa`` has 0, ``Passw0rd`` 2.75, ``hunter2!`` 3."""

_PLACEHOLDERS: Final = frozenset(
    b"127.0.0.1 0.0.0.0 change-me change_me changeit changeme changeme1 changeme123 "
    b"default1 disabled example1 letmein1 localhost mypassword p@ssw0rd passw0rd password "
    b"password1 password123 placeholder postgres postgres1 replace-me replaceme secret123 "
    b"test-key test1234 testing1 undefined your-api-key your-key-here your-token-here "
    b"your_api_key yourpassword 12345678 123456789 1234567890 qwerty123 sk-xxxx".split()
)
_PATH_STARTS: Final = (b"/", b"./", b"../", b"~/", b"file:", b"C:\\")


def unworthy(value: bytes) -> str:
    """Return why ``value`` is not to be registered, empty when it is."""
    if len(value) < VALUE_BYTES_MIN:
        return f"shorter than {VALUE_BYTES_MIN} bytes"
    if len(value) > VALUE_BYTES_MAX:
        return f"longer than {VALUE_BYTES_MAX} bytes"
    if value.lower() in _PLACEHOLDERS:
        return "a word that everybody uses"
    if value.isdigit() and len(value) < NUMBER_DIGITS_MIN:
        return f"a number of fewer than {NUMBER_DIGITS_MIN} digits"
    if value.startswith(_PATH_STARTS) and b"\n" not in value and value.count(b"/") > 1:
        return "a path"
    if b"://" in value[:40] and b"\n" not in value:
        return "a URL without a password"
    if value.isalpha() and len(value) < WORD_BYTES_MIN:
        return f"letters only, fewer than {WORD_BYTES_MIN}"
    if entropy(value) < ENTROPY_MIN:
        return "too regular"
    return ""

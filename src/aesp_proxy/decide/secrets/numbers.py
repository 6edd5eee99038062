"""Numbers of people, accounts and cards: check digits, lengths and ranges.

Each function takes the number as written, with spaces, dots or dashes between.
"""

from __future__ import annotations

from collections.abc import Iterable

from aesp_proxy.decide.secrets.measure import luhn_holds

_CARD_RANGES: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("2221", "2720", (16,)),
    ("300", "305", (14,)),
    ("34", "34", (15,)),
    ("3528", "3589", (16, 17, 18, 19)),
    ("36", "36", (14,)),
    ("37", "37", (15,)),
    ("38", "39", (14,)),
    ("4", "4", (13, 16, 19)),
    ("5018", "5018", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("5020", "5020", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("5038", "5038", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("51", "55", (16,)),
    ("6011", "6011", (16, 17, 18, 19)),
    ("62", "62", (16, 17, 18, 19)),
    ("6304", "6304", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("644", "649", (16, 17, 18, 19)),
    ("65", "65", (16, 17, 18, 19)),
    ("6759", "6763", (12, 13, 14, 15, 16, 17, 18, 19)),
)
"""First and last prefix of a range, and how many digits its numbers have.

Sources: ISO/IEC 7812; the networks' published ranges (Visa, Mastercard, American
Express, Discover with Diners Club, JCB, UnionPay, Maestro).
"""

_CARD_DIFFERENT_MIN = 2
_DIFFERENT_MIN = 3
_IBAN_CHARS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BI": 27, "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27,
    "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22,
    "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23,
    "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24,
    "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28,
    "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip
"""Characters of an IBAN by country: SWIFT's IBAN registry, release 99."""

_VERHOEFF_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
_SSN_NEVER = frozenset({"078051120", "219099999", "123456789"})
"""Numbers that the Social Security Administration calls invalid, and the one of examples."""


def card(value: bytes) -> bool:
    """A payment card: a range and length of a network, and the Luhn digit."""
    digits = _digits(value)
    if len(set(digits)) < _CARD_DIFFERENT_MIN or not luhn_holds(value):
        return False
    return any(
        first <= digits[: len(first)] <= last and len(digits) in lengths
        for first, last, lengths in _CARD_RANGES
    )


def iban(value: bytes) -> bool:
    """An IBAN: its country's length, and 1 modulo 97 (ISO 13616, ISO/IEC 7064)."""
    text = _letters(value)
    if _IBAN_CHARS.get(text[:2]) != len(text) or not text[2:4].isdigit():
        return False
    return int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1


def us_ssn(value: bytes) -> bool:
    """A US Social Security number that can have been issued (SSA, POMS RM 10201.035)."""
    digits = _digits(value)
    if len(digits) != 9 or digits in _SSN_NEVER or len(set(digits)) == 1:
        return False
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def us_npi(value: bytes) -> bool:
    """A US provider identifier: the Luhn digit with the prefix 80840 (45 CFR 162.406)."""
    digits = _digits(value)
    return len(digits) == 10 and digits[0] in "12" and luhn_holds(b"80840" + digits.encode())


def us_dea(value: bytes) -> bool:
    """A DEA registration: two letters, six digits, and a check digit of them."""
    text = _letters(value)
    if len(text) != 9 or not text[0].isalpha() or not text[2:].isdigit():
        return False
    a, b, c, d, e, f, check = (int(digit) for digit in text[2:])
    return (a + c + e + 2 * (b + d + f)) % 10 == check


def us_aba(value: bytes) -> bool:
    """A US bank's routing number: weights 3, 7, 1, and a Federal Reserve district."""
    digits = _digits(value)
    if len(digits) != 9 or len(set(digits)) < _DIFFERENT_MIN:
        return False
    district = int(digits[:2])
    known = district <= 12 or 21 <= district <= 32 or 61 <= district <= 72 or district == 80
    return known and _weighted(digits, (3, 7, 1) * 3) % 10 == 0


def uk_nhs(value: bytes) -> bool:
    """An NHS number of England or Wales: modulo 11 (NHS Data Dictionary)."""
    digits = _digits(value)
    if len(digits) != 10 or len(set(digits)) == 1:
        return False
    check = 11 - _weighted(digits[:9], range(10, 1, -1)) % 11
    return check % 11 == int(digits[9]) and check != 10


def ca_sin(value: bytes) -> bool:
    """A Canadian Social Insurance Number: nine digits with a Luhn digit, not 0 or 8 in front."""
    digits = _digits(value)
    return len(digits) == 9 and digits[0] not in "08" and luhn_holds(value)


def in_aadhaar(value: bytes) -> bool:
    """An Indian Aadhaar number: twelve digits, Verhoeff's check digit (UIDAI)."""
    digits = _digits(value)
    return len(digits) == 12 and digits[0] not in "01" and _verhoeff(digits) == 0


def de_tax_id(value: bytes) -> bool:
    """A German tax identifier: eleven digits, ISO/IEC 7064 mod 11,10, one digit repeated."""
    digits = _digits(value)
    if len(digits) != 11 or digits[0] == "0" or not 8 <= len(set(digits[:10])) <= 9:
        return False
    product = 10
    for digit in digits[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def fr_nir(value: bytes) -> bool:
    """A French social security number: 13 digits (2A and 2B for Corsica) and 97 less modulo 97."""
    text = _letters(value)
    if len(text) != 15:
        return False
    body = text[:13].replace("2A", "19", 1) if text[5:7] == "2A" else text[:13]
    body = body.replace("2B", "18", 1) if text[5:7] == "2B" else body
    return body.isdigit() and text[13:].isdigit() and 97 - int(body) % 97 == int(text[13:])


def es_dni(value: bytes) -> bool:
    """A Spanish DNI or NIE: the letter of the number modulo 23."""
    text = _letters(value)
    if len(text) != 9:
        return False
    number = str("XYZ".find(text[0])) + text[1:8] if text[0] in "XYZ" else text[:8]
    return number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[8]


def br_cpf(value: bytes) -> bool:
    """A Brazilian CPF: eleven digits, two of them modulo 11."""
    digits = _digits(value)
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    return all(
        _weighted(digits[:count], range(count + 1, 1, -1)) * 10 % 11 % 10 == int(digits[count])
        for count in (9, 10)
    )


def au_tfn(value: bytes) -> bool:
    """An Australian tax file number: nine digits, weighted, modulo 11."""
    digits = _digits(value)
    weights = (1, 4, 3, 7, 5, 8, 6, 9, 10)
    return len(digits) == 9 and digits[0] != "0" and _weighted(digits, weights) % 11 == 0


def us_mbi(value: bytes) -> bool:
    """A Medicare beneficiary identifier: eleven characters in CMS's order of kinds."""
    text = _letters(value)
    kinds = ("1", "A", "N", "0", "A", "N", "0", "A", "A", "0", "0")
    return len(text) == len(kinds) and all(map(_is_mbi, text, kinds))


def _is_mbi(char: str, kind: str) -> bool:
    letter = char in "ACDEFGHJKMNPQRTUVWXY"
    if kind == "A":
        return letter
    if kind == "N":
        return letter or char.isdigit()
    return char.isdigit() and (kind == "0" or char != "0")


def _digits(value: bytes) -> str:
    return "".join(chr(byte) for byte in value if byte in b"0123456789")


def _letters(value: bytes) -> str:
    """Return letters and digits alone, the letters as capitals."""
    text = value.decode("ascii", "ignore")
    return "".join(char for char in text if char.isalnum()).upper()


def _weighted(digits: str, weights: Iterable[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))


def _verhoeff(digits: str) -> int:
    """Return Verhoeff's sum over the dihedral group of order ten, 0 when it holds."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit)
        for _ in range(place % 8):
            number = _VERHOEFF_PERMUTATION[number]
        total = _dihedral(total, number)
    return total


def _dihedral(a: int, b: int) -> int:
    """Multiply in the dihedral group D5: 0 to 4 are rotations, 5 to 9 reflections."""
    if a < 5:
        return (a + b) % 5 if b < 5 else (a + b) % 5 + 5
    return (a - b) % 5 + 5 if b < 5 else (a - b) % 5


def phone(value: bytes) -> bool:
    """A telephone number: seven to fifteen digits, not all alike (ITU-T E.164)."""
    digits = _digits(value)
    return 7 <= len(digits) <= 15 and len(set(digits)) >= _DIFFERENT_MIN

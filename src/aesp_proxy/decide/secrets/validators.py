"""The checks that a rule can ask of a secret by name: ``validate = ["luhn"]``.

Rules:

- A check is pure, takes bytes of any kind and length, never raises, and costs time
  linear in them (up to a length that no secret of its kind has).
- All checks of a rule must hold. Where one does not, the match is none, or, where the
  rule says ``invalid``, is told with that severity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from aesp_proxy.decide.secrets import checksums, numbers, structures
from aesp_proxy.decide.secrets.measure import is_mixed, luhn_holds

type Validator = Callable[[bytes], bool]

VALIDATORS: Mapping[str, Validator] = MappingProxyType(
    {
        "au-tfn": numbers.au_tfn,
        "aws-key-id": structures.aws_key_id,
        "base58check": checksums.base58check,
        "base64-json": structures.base64_json,
        "base64-key-64": structures.base64_key_64,
        "bech32": checksums.bech32,
        "bip39": structures.bip39,
        "br-cpf": numbers.br_cpf,
        "ca-sin": numbers.ca_sin,
        "card": numbers.card,
        "cloudflare-tunnel": structures.cloudflare_tunnel,
        "crc32-base36": checksums.crc32_base36,
        "crc32-base62": checksums.crc32_base62,
        "crc32-base62-all": checksums.crc32_base62_all,
        "de-tax-id": numbers.de_tax_id,
        "es-dni": numbers.es_dni,
        "fr-nir": numbers.fr_nir,
        "iban": numbers.iban,
        "in-aadhaar": numbers.in_aadhaar,
        "jwt": structures.jwt,
        "key-bytes": structures.der_or_openssh,
        "luhn": luhn_holds,
        "mixed": is_mixed,
        "phone": numbers.phone,
        "strkey": checksums.strkey,
        "uk-nhs": numbers.uk_nhs,
        "us-aba": numbers.us_aba,
        "us-dea": numbers.us_dea,
        "us-mbi": numbers.us_mbi,
        "us-npi": numbers.us_npi,
        "us-ssn": numbers.us_ssn,
    }
)

"""What the tables of keys are made of: a key's type, its entries, and its law when files join.

One row a key. The reader checks by it, the merge and the levels join by it, the JSON
Schema is written from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """What a key holds."""

    FLAG = "true or false"
    TEXT = "a text"
    CHOICE = "one of a few words"
    COUNT = "a whole number"
    RATIO = "a number"
    TEXTS = "a list of texts"
    TABLE = "keys and values"
    TABLES = "a list of keys and values"
    PAIRS = "names and texts"
    ANY = "anything"


class Form(Enum):
    """What each text of a list is; the loader checks every one, wherever it stands."""

    FREE = "any text"
    HOST = "a host rule"
    GLOB = "a path pattern"
    TOOL = "a tool rule"
    REGEX = "a regular expression (RE2)"
    RESOURCE = "egress:HOST, file:GLOB, tool:TOOL or *"
    ACTION = "an action"
    KEY = "a key of the policy"
    PACK = "a pack of kinds of secret"


class Law(Enum):
    """What a file may do to a key that a file above it has stated.

    In a chain of ``extends`` the child's value stands where it is stated. Below a level
    that is not overridable only what is said here is accepted.
    """

    TOLD = "describes the file; the last one stands"
    FORBIDS = "entries may be added, none removed"
    PERMITS = "entries may be removed, none added"
    EXCEPTS = "entries may be removed, none added; a chain unites them"
    ADDS = "adds to the list it names"
    REMOVES = "removes from the list it names"
    SWITCH = "may be switched on; see the section"
    ON = "true is the stricter"
    OFF = "false is the stricter"
    LESS = "the lower number is the stricter"
    ORDER = "the word that comes later in the list of choices is the stricter"
    EITHER = "neither is the stricter"
    RULES = "restricting rules may be added; an allowing one may be disabled"
    LOCKS = "may be added"
    SECTION = "key by key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key. ``not_enforced`` says why a value with effect is refused; empty: enforced.

    ``choices`` of a key whose law is ORDER go from the weakest to the strictest. ``entry``
    is the key by which entries of a list of tables are told apart. ``of`` is the list that
    an ADDS or REMOVES key is about. ``default`` of a list names the list that holds then.
    """

    kind: Kind
    law: Law = Law.TOLD
    text: str = ""
    choices: tuple[str, ...] = ()
    keys: Mapping[str, Field] = field(default_factory=dict)
    required: bool = False
    form: Form = Form.FREE
    entry: str = ""
    of: str = ""
    count_max: int = 2**53
    default: str = ""
    not_enforced: str = ""

"""Lay a text out, and hold the result to it: same values, same comments, nothing left to do."""

from __future__ import annotations

from collections import Counter

from aesp_proxy.decide.policy.document import Mapping, Node, Scalar, Sequence, parse_document
from aesp_proxy.decide.policy.layout.read import comments_of, read_layout
from aesp_proxy.decide.policy.layout.write import write_layout
from aesp_proxy.errors import ConfigError


def laid_out(text: str, where: str) -> str:
    """Return the text of a policy in the one layout; its line ends become plain.

    Raises ``ConfigError`` for a text that is no good document, and for one that cannot be laid
    out without losing anything: then nothing is to be written.
    """
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    before = parse_document(plain, where)
    made = write_layout(read_layout(plain, where))
    after = parse_document(made, where)
    if _values(before) != _values(after):
        raise _refused(where, "the layout would change a value")
    if _comments(plain) != _comments(made):
        raise _refused(where, "the layout would change a comment")
    if write_layout(read_layout(made, where)) != made:
        raise _refused(where, "the layout would change again")
    return made


def _refused(where: str, why: str) -> ConfigError:
    return ConfigError(why, where=where, remedy="the file stays as it is; please report it")


def _comments(text: str) -> Counter[str]:
    return Counter(comment.text for comment in comments_of(text))


def _values(node: Node) -> object:
    """Return what a node says: texts, lists in their order, tables without theirs."""
    match node:
        case Scalar():
            return node.text
        case Sequence():
            return [_values(item) for item in node.items]
        case Mapping():
            return {key.text: _values(value) for key, value in node.entries}

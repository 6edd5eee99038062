from __future__ import annotations

import pytest

from aesp_proxy.errors import ConfigError, InputError, TrustError
from aesp_proxy.record.merkle import leaf_hashes
from aesp_proxy.record.tlog.checkpoint import Checkpoint
from aesp_proxy.record.tlog.note import KeyType, Note, sign_text, signing_key
from aesp_proxy.record.tlog.policy import parse_policy, policy_of
from aesp_proxy.record.tlog.proof import LogProof, parse_proof, verify_proof
from aesp_proxy.record.tlog.tile import join_hashes
from aesp_proxy.record.tlog.tree import Edge, TreeReader, grow

LOG = signing_key("log.example/1", KeyType.ED25519, b"\x01" * 32)
WITNESSES = [
    signing_key(f"w{number}.example", KeyType.COSIGNATURE, bytes([number]) * 32)
    for number in range(2, 6)
]
ENTRIES = [b"entry %d" % number for number in range(7)]


def proof_of(index: int, *, cosigners: int = 0, signer=LOG, extra: bytes = b"") -> LogProof:
    edge, _ = grow(Edge(), leaf_hashes(ENTRIES))
    stored = {tile: join_hashes(hashes) for tile, hashes in edge.tiles()}
    text = Checkpoint(origin="log.example/1", size=len(ENTRIES), root=edge.root).text
    signatures = [sign_text(text, key, time_s=7) for key in (signer, *WITNESSES[:cosigners])]
    return LogProof(
        index=index,
        path=tuple(TreeReader(size=len(ENTRIES), read=stored.__getitem__).inclusion(index)),
        note=Note(text=text, signatures=tuple(signatures)),
        extra=extra,
    )


POLICY = policy_of([LOG.public], [])


@pytest.mark.parametrize("index", range(7))
def test_a_proof_is_read_as_it_was_written_and_holds_for_its_entry_only(index: int):
    proof = proof_of(index, extra=b"x")
    assert parse_proof(proof.encode()) == proof
    assert verify_proof(proof, ENTRIES[index], POLICY).checkpoint.size == 7
    with pytest.raises(TrustError):
        verify_proof(proof, ENTRIES[index - 1], POLICY)


def test_no_changed_byte_of_a_proof_passes():
    data = proof_of(4, cosigners=1).encode()
    policy = policy_of([LOG.public], [WITNESSES[0].public])
    verify_proof(parse_proof(data), ENTRIES[4], policy)
    for at in range(len(data)):
        for value in (data[at] ^ 1, data[at] ^ 0x20, 0x0A):
            changed = data[:at] + bytes([value]) + data[at + 1 :]
            if changed == data:
                continue
            with pytest.raises((InputError, TrustError)):
                verify_proof(parse_proof(changed), ENTRIES[4], policy)
        with pytest.raises((InputError, TrustError)):
            verify_proof(parse_proof(data[:at]), ENTRIES[4], policy)


def test_a_log_that_is_not_trusted_proves_nothing():
    other = signing_key("log.example/1", KeyType.ED25519, b"\x0a" * 32)
    with pytest.raises(TrustError, match="no log key"):
        verify_proof(proof_of(0, signer=other), ENTRIES[0], POLICY)
    elsewhere = policy_of([signing_key("log.example/2", KeyType.ED25519, b"\x01" * 32).public], [])
    with pytest.raises(TrustError, match="no log key"):
        verify_proof(proof_of(0), ENTRIES[0], elsewhere)


@pytest.mark.parametrize(("cosigners", "holds"), [(0, False), (1, False), (2, True), (3, True)])
def test_so_many_witnesses_as_the_quorum_asks_are_needed(cosigners: int, holds: bool):  # noqa: FBT001
    policy = policy_of([LOG.public], [key.public for key in WITNESSES], need=2)
    proof = proof_of(0, cosigners=cosigners)
    if holds:
        assert len(verify_proof(proof, ENTRIES[0], policy).witnesses) == cosigners
    else:
        with pytest.raises(TrustError, match="too few witnesses"):
            verify_proof(proof, ENTRIES[0], policy)


EXAMPLE = """
log {log}

witness X1 {0}
\twitness X2 {1}   https://x2.example/w
# a comment
witness X3 {2}
group X-witnesses 2 X1 X2 X3
witness Y1 {3}
group Y-witnesses any Y1
group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def test_the_policy_of_the_specification_is_read_and_asks_for_both_groups():
    keys = [str(key.public) for key in WITNESSES]
    policy = parse_policy(EXAMPLE.format(*keys, log=LOG.public).encode())
    assert [witness.url for witness in policy.witnesses] == ["", "https://x2.example/w", "", ""]
    assert policy.is_quorum(["X1", "X3", "Y1"])
    assert not policy.is_quorum(["X1", "Y1"])
    assert not policy.is_quorum(["X1", "X2", "X3"])
    assert policy.accept(proof_of(0, cosigners=4).note).witnesses == ("X1", "X2", "X3", "Y1")
    with pytest.raises(TrustError):
        policy.accept(proof_of(0, cosigners=3).note)


W1 = f"witness W1 {WITNESSES[0].public}\n"
W2 = f"witness W2 {WITNESSES[1].public}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum W1\n",
        "quorum none\nquorum none\n",
        "what is this\n",
        "log nothing\nquorum none\n",
        f"log {LOG.public}\nlog {LOG.public}\nquorum none\n",
        f"witness W1 {LOG.public}\nquorum none\n",
        f"{W1}{W1}quorum none\n",
        f"{W1}witness W2 {WITNESSES[0].public}\nquorum none\n",
        f"{W1}group W1 all W1\nquorum none\n",
        f"{W1}group G 2 W1\nquorum G\n",
        f"{W1}group G 0 W1\nquorum G\n",
        f"{W1}group G all\nquorum none\n",
        f"{W1}{W2}group G any W1\ngroup H all G W1\nquorum H\n",
        f"{W1}group G all none\nquorum G\n",
        f"group G any W1\n{W1}quorum G\n",
        "quorum none\x00\n",
    ],
)
def test_what_is_no_policy_is_refused(text: str):
    with pytest.raises(ConfigError):
        parse_policy(text.encode())

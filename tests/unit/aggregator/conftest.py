"""A host's chain of batches as tests need it: right by default, wrong where asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from aesp_proxy.aggregator.identity import DataDir
from aesp_proxy.aggregator.ports import Certificate, Identity, Role
from aesp_proxy.aggregator.store.control import Control
from aesp_proxy.aggregator.stores import open_control
from aesp_proxy.model.record import Outcome, Record, RecordId, RecordKind
from aesp_proxy.record.batch import SealedBatch, draft, encode_batch, seal
from aesp_proxy.record.canonical import encode
from aesp_proxy.record.head import Head, advance, genesis
from aesp_proxy.record.header import decode_header, header_hash
from aesp_proxy.record.signature import Signer, key_id_of, new_private_pem, signer_from_pem

START_NS = 1_800_000_000_000_000_000
SECOND_NS = 1_000_000_000


def new_key() -> tuple[bytes, Signer]:
    return signer_from_pem(new_private_pem())


@dataclass
class Chain:
    """Seals batches for one origin and follows its own head."""

    origin: str = "h-one"
    key: tuple[bytes, Signer] = field(default_factory=new_key)
    head: Head | None = None
    next_seq: int = 1

    @property
    def public_key(self) -> bytes:
        return self.key[0]

    def record(self, seq: int, **changes: Any) -> Record:
        denied = seq % 5 == 0
        plain = Record(
            kind=RecordKind.DECISION,
            time_ns=START_NS + seq * SECOND_NS,
            event_type="http",
            action="http.post",
            outcome=Outcome.DENIED if denied else Outcome.SUCCESS,
            verdict="deny" if denied else "allow",
            reason="host_blocked" if denied else "allowed",
            guard="egress_allowlist",
            severity="warning" if denied else "info",
            message="said",
            resource="https://api.example.test/v1",
            target_host=f"api{seq % 3}.example.test",
            session_id=f"s-{seq // 100}",
            agent_id=f"agent-{seq % 2}",
            status=200,
        )
        return replace(plain, **changes)

    def rows(self, count: int, **changes: Any) -> list[bytes]:
        return [
            encode(self.record(seq, **changes), RecordId(origin=self.origin, epoch=1, seq=seq))
            for seq in range(self.next_seq, self.next_seq + count)
        ]

    def seal(
        self,
        count: int = 3,
        *,
        rows: list[bytes] | None = None,
        header: dict[str, Any] | None = None,
        **changes: Any,
    ) -> SealedBatch:
        """Seal what would come next, without moving on."""
        head = self.head or genesis(self.origin)
        rows = self.rows(count, **changes) if rows is None else rows
        first = self.record(self.next_seq, **changes).time_ns if rows else 0
        last = self.record(self.next_seq + count - 1, **changes).time_ns if rows else 0
        drafted = draft(
            head,
            key_id=key_id_of(self.public_key),
            epoch=1 if rows else 0,
            first_seq=self.next_seq if rows else 0,
            wall_ns=START_NS + head.batch_no * SECOND_NS,
            mono_ns=1 + head.batch_no * SECOND_NS,
            boot_id="boot",
            first_time_ns=first,
            last_time_ns=last,
        )
        return seal(rows, header=replace(drafted, **(header or {})), sign=self.key[1])

    def follow(self, batch: SealedBatch) -> bytes:
        """Take ``batch`` as the newest of this chain; return its encoded form."""
        header = decode_header(batch.header_bytes)
        self.head = advance(
            self.head or genesis(self.origin), header, header_hash(batch.header_bytes)
        )
        if header.epoch:
            self.next_seq = header.first_seq + header.count
        return encode_batch(batch)

    def take(self, count: int = 3, **more: Any) -> bytes:
        """Seal the next batch and move on; return its encoded form."""
        return self.follow(self.seal(count, **more))


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def new_chain() -> Callable[..., Chain]:
    return Chain


@pytest.fixture
def stores_text() -> str:
    """What ``stores.yaml`` says; others say that the same tests hold for other stores."""
    return ""


@pytest.fixture
def stores(tmp_path: Path, stores_text: str) -> DataDir:
    """A data directory without keys whose stores are as ``stores_text`` says."""
    data = DataDir(tmp_path / "stores")
    data.root.mkdir()
    if stores_text:
        data.store_settings.write_text(stores_text)
    return data


@pytest.fixture
def control(stores: DataDir) -> Any:
    store = open_control(stores)
    yield store
    store.close()


@pytest.fixture
def enrol(control: Control) -> Callable[..., Identity]:
    def enrol_chain(chain: Chain, *, tenants: tuple[str, ...] = ()) -> Identity:
        identity = Identity(role=Role.HOST, name=chain.origin)
        control.enrol(
            chain.origin,
            public_key=chain.public_key,
            tenants=frozenset(tenants),
            certificate=Certificate(
                fingerprint=chain.origin.encode(),
                identity=identity,
                issued_ns=1,
                not_after_ns=START_NS * 2,
            ),
        )
        return identity

    return enrol_chain

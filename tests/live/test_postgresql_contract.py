"""What the embedded stores promise, PostgreSQL promises too: the same tests, run on it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_tests import unit_module
from postgresql_lab import Cluster, needs_postgresql, running_cluster

from aesp_proxy.aggregator.databases import close_databases

pytestmark = needs_postgresql

# What is said of SQLite's files, or asks no database anything.
NOT_HERE = {
    "test_what_a_crash_left_past_the_head_is_removed_at_the_next_start",
    "test_a_failed_sync_promises_nothing_and_the_batch_is_taken_later",
}


def _on_a_store(value: object) -> bool:
    """Whether it is a test that is given a store, and not a property over many."""
    if not inspect.isfunction(value) or hasattr(value, "is_hypothesis_test"):
        return False
    given = inspect.signature(value).parameters
    return bool(given.keys() & {"control", "aggregator", "small", "lab", "data"})


# The tests of test_control.py that open a store.
CONTROL = {
    "test_a_certificate_stands_for_the_host_it_was_issued_to",
    "test_enrolling_again_renews_and_shuts_the_old_certificate_out",
    "test_a_key_belongs_to_one_origin_and_an_origin_has_one_first_key",
    "test_what_one_process_changes_another_sees_at_its_next_question",
}
FIXTURES = ("chain", "new_chain", "enrol", "control", "stores", "aggregator", "small", "data")

for _place in ("aggregator/conftest", "aggregator/test_writer", "aggregator/test_tokens"):
    _found = vars(unit_module(_place))
    globals().update({name: _found[name] for name in FIXTURES if name in _found})
    globals().update(
        {
            name: value
            for name, value in _found.items()
            if name.startswith("test_") and _on_a_store(value) and name not in NOT_HERE
        }
    )
_control = vars(unit_module("aggregator/test_control"))
globals().update({name: _control[name] for name in (*sorted(CONTROL), "data")})
globals().update({"new_event": vars(unit_module("export/conftest"))["new_event"]})
_export = vars(unit_module("export/test_exporter"))
globals().update({"lab": _export["lab"]})
globals().update(
    {n: v for n, v in _export.items() if n.startswith("test_") and _on_a_store(v)},
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[str]:
    yield cluster.new_database()
    close_databases()


@pytest.fixture
def stores_text(cluster: Cluster, database: str) -> str:
    return f"database: {cluster.emptied(database)}\n"


def test_every_contract_is_here(request: Any) -> None:
    ran = {item.originalname for item in request.session.items if item.path == Path(__file__)}
    assert ran >= {
        "test_two_batches_with_one_number_are_a_fork_kept_as_evidence_for_ever",
        "test_a_used_token_answers_only_the_request_that_used_it",
        "test_a_back_fill_repeats_a_range_and_new_records_do_not_wait_for_it",
        *CONTROL,
    }

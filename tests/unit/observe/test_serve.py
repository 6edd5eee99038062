"""What the observer records: that it stopped nothing, and what the policy says of it."""

from __future__ import annotations

import os
import threading

from file_lab import Recorded, file_gate

from aesp_proxy.intercept.file_port import Given
from aesp_proxy.intercept.observe.serve import serve


def test_changes_and_forbidden_openings_are_recorded_as_what_was_not_stopped(tmp_path):
    (tmp_path / ".env").write_text("secret")
    (tmp_path / "fine").write_text("fine")
    journal, ready = Recorded(), threading.Event()
    control, told = os.pipe()
    given = Given(
        descriptors=(),
        trees=(str(tmp_path),),
        apart=(),
        covers=(),
        entries_max=100,
        control=control,
        heard=lambda: bool(os.read(control, 1)),
        ready=ready.set,
    )
    observer = threading.Thread(target=serve, args=[file_gate(journal=journal), given])
    observer.start()
    assert ready.wait(10)
    (tmp_path / ".env").read_text()
    (tmp_path / "fine").read_text()
    (tmp_path / "new").write_text("12345")
    (tmp_path / "new").rename(tmp_path / ".bashrc")
    (tmp_path / ".env").unlink()
    os.close(told)
    observer.join(10)
    os.close(control)
    seen = [(each.action, each.target_path, each.verdict) for each in journal.records]
    assert seen == [
        ("file.open", f"{tmp_path}/.env", "audit"),
        ("file.create", f"{tmp_path}/new", "allow"),
        ("file.write", f"{tmp_path}/new", "allow"),
        ("file.rename", f"{tmp_path}/.bashrc", "audit"),
        ("file.delete", f"{tmp_path}/.env", "audit"),
    ]
    assert {dict(each.metadata)["enforced"] for each in journal.records} == {"no"}
    assert "not stopped: " in journal.records[0].message

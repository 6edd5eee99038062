"""Whose files of processes an agent may have opened for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from aesp_proxy.intercept.notify import processes
from aesp_proxy.intercept.notify.processes import Processes, _process_of


@pytest.mark.parametrize(
    ("path", "number", "rest"),
    [
        ("/proc/12/environ", 12, "environ"),
        ("/proc/12", 12, ""),
        ("/proc/12/task/13/mem", 12, "task/13/mem"),
        ("/proc/irq/24/affinity", 0, ""),
        ("/proc", 0, ""),
        ("/", 0, ""),
        ("/srv/host/proc/12/mem", 12, "mem"),
        ("/srv/12/proc/irq", 12, "proc/irq"),
    ],
)
def test_a_path_is_of_a_process(path, number, rest):
    assert _process_of(path) == (number, rest)


@pytest.fixture
def child():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


def test_only_descendants_of_the_init_are_the_agents(child):
    # As seen from a thread of the child: its parent, this process, is the init.
    agent = Processes(child)
    ours = os.stat("/proc").st_dev  # noqa: PTH116
    agent.refuse_foreign(f"/proc/{child}/mem", ours)
    for number in (os.getpid(), os.getppid(), 1, 2**22):
        with pytest.raises(PermissionError):
            agent.refuse_foreign(f"/proc/{number}/environ", ours)
        agent.refuse_foreign(f"/proc/{number}/stat", ours)
    agent.refuse_foreign("/proc/meminfo", ours)


def test_of_a_procfs_of_others_only_what_is_public_is_opened(child):
    agent, other = Processes(child), 12345
    with pytest.raises(PermissionError):
        agent.refuse_foreign(f"/proc/{child}/mem", other)
    agent.refuse_foreign(f"/proc/{child}/stat", other)


def test_a_process_namespace_without_a_proc_of_its_own_is_numbered_as_ours(child, monkeypatch):
    """Where none may be mounted the agent sees the host's: its numbers mean the host's."""
    agent = Processes(child)
    assert agent._own == -1
    ours = os.stat("/proc").st_dev  # noqa: PTH116
    assert agent.words_for(b"self", child, ours) == str(child).encode()
    agent._own = ours
    with pytest.raises(PermissionError):
        agent.refuse_foreign("/proc/1/mem", ours)
    agent.refuse_foreign("/proc/7/mem", ours)


def test_the_mask_of_modes_is_the_processs_own(child):
    assert processes.umask_of(child) == processes.umask_of(os.getpid())
    before = os.umask(0o077)
    try:
        assert processes.umask_of(os.getpid()) == 0o077
    finally:
        os.umask(before)


def test_what_we_make_ourselves_has_our_own_mask_again(child):
    before = processes.umask_of(os.getpid())
    with processes.mask_of(child):
        os.umask(0o777)
    assert processes.umask_of(os.getpid()) == before

"""A worker that loads before it is told what it listens on."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from aesp_proxy.daemon import early
from aesp_proxy.daemon.config import Settings
from aesp_proxy.daemon.listener import bind
from aesp_proxy.daemon.process import EarlyWorker, start_early_worker, start_helpers
from aesp_proxy.errors import UnavailableError
from aesp_proxy.launch import reaper


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_sockets_arrive_each_behind_its_option():
    ours, theirs = pair()
    first, second = socket.socketpair()
    with first, second:
        early.give(ours, [("--control-fd", first), ("--listen-fd", second)])
        words = early.take(theirs)
        assert words is not None
        arrived = [os.fstat(int(fd)).st_ino for fd in words[1::2]]
        assert words[::2] == ["--control-fd", "--listen-fd"]
        assert arrived == [os.fstat(each.fileno()).st_ino for each in (first, second)]
        for fd in words[1::2]:
            os.close(int(fd))


def test_a_channel_that_ends_gives_nothing():
    ours, theirs = pair()
    ours.close()
    assert early.take(theirs) is None


def test_a_worker_that_is_given_nothing_ends_quietly(tmp_path):
    loading = start_early_worker(log=tmp_path / "log")
    loading.channel.close()
    loading.process.collect()
    assert loading.process.exit_code == 0
    assert (tmp_path / "log").read_text() == ""


def test_a_worker_that_is_not_needed_is_gone_at_once(tmp_path):
    loading = start_early_worker(log=tmp_path / "log")
    loading.discard()
    assert loading.process.exit_code == -signal.SIGKILL


def test_a_worker_that_died_while_it_loaded_is_told(tmp_path: Path):
    loading: EarlyWorker = start_early_worker(log=tmp_path / "log")
    loading.process.send_signal(signal.SIGKILL)
    loading.process.collect()
    settings = Settings(state_dir=tmp_path)
    with pytest.raises(UnavailableError, match="proxy: it was killed by SIGKILL while it loaded"):
        start_helpers(settings, bind(settings), log=tmp_path / "log", loading=loading)
    assert reaper.descendants(os.getpid()) == []

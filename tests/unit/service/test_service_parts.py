"""The parts of the service, each by itself."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from aesp_proxy.daemon import control
from aesp_proxy.daemon.config import Settings, build
from aesp_proxy.daemon.config_values import Given
from aesp_proxy.daemon.listener import bind_shared
from aesp_proxy.daemon.policy_kept import PolicyReader, read_kept, write_kept
from aesp_proxy.daemon.service.answer import answer_questions
from aesp_proxy.daemon.service.ask import ask_status
from aesp_proxy.daemon.service.notify import Notifier
from aesp_proxy.daemon.service.plan import share_of
from aesp_proxy.daemon.service.restarts import RESTARTS_MAX, WINDOW_S, Restarts
from aesp_proxy.daemon.service.run_dir import RunDir, run_dir_of, socket_in
from aesp_proxy.daemon.service.watch import FilesWatch, signature
from aesp_proxy.errors import ConfigError, InputError, UnavailableError

WAIT_S = 20.0
POLICY = 'version: "1.2.0"\nname: {name}\nguards:\n  egress_allowlist: {{allow: ["{allow}"]}}\n'


def settings_of(**values: object) -> Settings:
    given = {
        name.replace("__", "."): Given(value=value, where="-") for name, value in values.items()
    }
    return build([{"state_dir": Given(value="/s", where="-")}, given])


# telling systemd ----------------------------------------------------------------------


@pytest.mark.parametrize("is_abstract", [True, False])
def test_what_is_said_is_one_datagram_of_lines(tmp_path, is_abstract):
    name = f"@aesp-unit-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if is_abstract else name)
        manager.settimeout(WAIT_S)
        environ = {
            "NOTIFY_SOCKET": name,
            "WATCHDOG_USEC": "30000000",
            "WATCHDOG_PID": str(os.getpid()),
            "A": "b",
        }
        notifier = Notifier.take(environ)
        assert environ == {"A": "b"}
        assert notifier.watchdog_s == 30.0
        notifier.ready("well")
        assert manager.recv(4096) == b"READY=1\nSTATUS=well"
        notifier.reloading()
        assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_nobody_to_tell_is_no_error(tmp_path):
    Notifier().say("READY=1")
    Notifier(str(tmp_path / "none")).say("READY=1")
    other = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}
    assert Notifier.take(other).watchdog_s == 0.0


# the run directory ----------------------------------------------------------------------


def test_the_run_directory_is_the_managers_then_the_systems_then_the_users(tmp_path):
    plain = settings_of()
    assert run_dir_of(plain, {"RUNTIME_DIRECTORY": "/run/a:/run/b"}, is_root=False) == Path(
        "/run/a"
    )
    assert run_dir_of(plain, {}, is_root=True) == Path("/run/aesp-proxy")
    assert run_dir_of(plain, {"XDG_RUNTIME_DIR": "/x"}, is_root=False) == Path("/x/aesp-proxy")
    assert run_dir_of(plain, {"XDG_RUNTIME_DIR": "x"}, is_root=False) == Path("/s/run")
    set_so = settings_of(daemon__run_dir="/y")
    assert run_dir_of(set_so, {"RUNTIME_DIRECTORY": "/run/a"}, is_root=True) == Path("/y")


def test_a_run_directory_is_held_by_one_and_its_socket_is_closed_to_others(tmp_path):
    with RunDir(tmp_path / "run") as held:
        assert stat.S_IMODE(socket_in(held.path).stat().st_mode) == 0o600
        assert stat.S_IMODE(held.path.stat().st_mode) == 0o700
        with pytest.raises(ConfigError, match="another daemon"):
            RunDir(tmp_path / "run")
    assert not socket_in(tmp_path / "run").exists()
    with RunDir(tmp_path / "run"):
        pass


def test_a_run_directory_that_others_may_write_to_is_not_used(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match="others may write"):
        RunDir(tmp_path)


def test_a_path_too_long_for_a_socket_is_told(tmp_path):
    with pytest.raises(ConfigError, match="107 bytes"):
        RunDir(tmp_path / ("d" * 110))


# the status ---------------------------------------------------------------------------


async def answered(path: Path, uid: int | None, monkeypatch: pytest.MonkeyPatch) -> object:
    if uid is not None:
        monkeypatch.setattr("aesp_proxy.daemon.service.answer.peer_uid", lambda _: uid)

    async def status(question: object) -> dict[str, object]:
        return {"state": "running"}

    with RunDir(path) as held, trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_questions, held.listener, {"status": status})
            try:
                return await trio.to_thread.run_sync(ask_status, socket_in(path))
            except UnavailableError as error:
                return str(error)
            finally:
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize("uid", [None, 0])
def test_our_own_user_and_root_are_answered(tmp_path, monkeypatch, uid):
    assert trio.run(answered, tmp_path / "run", uid, monkeypatch) == {"state": "running"}


def test_another_user_is_not_answered(tmp_path, monkeypatch):
    said = trio.run(answered, tmp_path / "run", 12345, monkeypatch)
    assert "does not answer" in str(said)


def test_where_nothing_runs_nothing_is_told(tmp_path):
    assert ask_status(tmp_path / "none") is None


# starting again -----------------------------------------------------------------------


def test_deaths_are_followed_by_longer_pauses_and_then_by_none():
    restarts = Restarts()
    pauses = [restarts.died(float(now)) for now in range(RESTARTS_MAX + 1)]
    assert pauses[:-1] == sorted(pauses[:-1])
    assert pauses[0] == 0.1
    assert pauses[-1] is None
    assert restarts.total == RESTARTS_MAX + 1


def test_deaths_of_long_ago_do_not_count():
    restarts = Restarts()
    assert {restarts.died(now * WINDOW_S) for now in range(1, 50)} == {0.1}


# several workers ----------------------------------------------------------------------


def test_what_bounds_all_is_divided_among_workers_and_rounded_up():
    whole = settings_of(limits__connections_max=10, budget__requests_max=3)
    part = share_of(whole, 4)
    assert part.limits.connections_max == 3
    assert part.budget.requests_max == 1
    assert part.budget.bytes_out_max == 0
    assert share_of(whole, 1) is whole


def test_sockets_of_several_workers_are_of_one_port():
    sockets = bind_shared(settings_of(), 3)
    try:
        assert len({each.getsockname() for each in sockets}) == 1
        with pytest.raises(ConfigError, match="cannot listen"):
            bind_shared(settings_of(listen__port=sockets[0].getsockname()[1]), 1)
    finally:
        for each in sockets:
            each.close()


# the policy that is kept ----------------------------------------------------------------


def test_a_kept_policy_is_the_same_when_its_files_are_not(tmp_path):
    (tmp_path / "base.yaml").write_text(POLICY.format(name="base", allow="one.test"))
    path = tmp_path / "policy.yaml"
    path.write_text('version: "1.2.0"\nname: child\nextends: base\n')
    reader = PolicyReader(path)
    kept, policy = reader.read()
    assert reader.files == (path, tmp_path / "base.yaml")
    write_kept(tmp_path / "kept.json", kept)
    (tmp_path / "base.yaml").unlink()
    path.write_text("broken: [")
    again = read_kept(tmp_path / "kept.json").policy()
    assert (again.hash, again.where, again.layers) == (policy.hash, policy.where, policy.layers)
    assert stat.S_IMODE((tmp_path / "kept.json").stat().st_mode) == 0o600


def test_the_files_of_a_broken_policy_are_known_as_far_as_they_were_read(tmp_path):
    path = tmp_path / "policy.yaml"
    (tmp_path / "base.yaml").write_text("broken: [")
    path.write_text('version: "1.2.0"\nname: child\nextends: base\n')
    reader = PolicyReader(path)
    with pytest.raises(ConfigError):
        reader.read()
    assert reader.files == (path, tmp_path / "base.yaml")


def test_the_built_in_baseline_can_be_kept_too():
    kept, policy = PolicyReader(None).read()
    assert kept.policy().hash == policy.hash


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format":"x"}', "\xff"])
def test_a_damaged_kept_policy_is_told(tmp_path, text):
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        read_kept(path)


# watching -----------------------------------------------------------------------------


def changes_after(path: Path, change: object) -> bool:
    """Whether a change is noticed, and seen to be one."""

    async def play() -> bool:
        with FilesWatch() as watch:
            assert watch.follow([path])
            assert not watch.follow([path])
            before = signature([path])
            assert callable(change)
            change()
            with trio.fail_after(WAIT_S):
                await watch.changed()
            return signature([path]) != before

    return trio.run(play)


def test_a_file_that_is_written_replaced_or_removed_is_noticed(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("a")
    assert changes_after(path, lambda: path.write_text("ab"))
    (tmp_path / "draft").write_text("abc")
    assert changes_after(path, lambda: (tmp_path / "draft").replace(path))
    assert changes_after(path, path.unlink)
    assert changes_after(path, lambda: path.write_text("a"))


def test_a_link_above_the_file_that_is_swapped_is_noticed_as_kubelet_does_it(tmp_path):
    for name in ("..1", "..2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text(name)
    (tmp_path / "..data").symlink_to("..1")
    path = tmp_path / "policy.yaml"
    path.symlink_to("..data/policy.yaml")

    def swap() -> None:
        (tmp_path / "..tmp").symlink_to("..2")
        (tmp_path / "..tmp").replace(tmp_path / "..data")

    assert changes_after(path, swap)
    assert path.read_text() == "..2"


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path):
    path = tmp_path / "later/policy.yaml"
    changes_after(path, path.parent.mkdir)
    assert changes_after(path, lambda: path.write_text("a"))


def test_what_happens_to_other_files_is_no_change(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("a")
    assert not changes_after(path, lambda: (tmp_path / "noise.log").write_text("a"))
    assert changes_after(path, lambda: (tmp_path / "parent.yaml").write_text("a"))


# the frames ---------------------------------------------------------------------------


def frame_of(data: bytes) -> dict[str, object]:
    (frame,) = control.FrameDecoder().feed(data)
    return frame


def test_what_a_worker_says_of_policy_and_counts_is_read_again():
    serving = control.Serving(serial=3, name="a", hash="b", stamp="c")
    counts = control.Counts(connections=1, allowed=2, refused=3)
    assert control.from_worker(frame_of(control.serving_frame(serving))) == serving
    assert control.from_worker(frame_of(control.counts_frame(counts))) == counts
    with pytest.raises(InputError):
        control.from_worker({"type": "counts", "connections": "1", "allowed": 0, "refused": 0})


def test_orders_to_a_worker_say_what_they_are():
    assert frame_of(control.reload_frame(kept="/k", serial=2)) == {
        "type": "reload",
        "kept": "/k",
        "serial": 2,
    }
    assert frame_of(control.count_frame()) == {"type": "count"}
    assert len(str(frame_of(control.refused_frame("x" * 10_000))["message"])) == 4096

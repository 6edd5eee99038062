"""Names that several workers know alike."""

from __future__ import annotations

from ipaddress import ip_address

from aesp_proxy.daemon.listener import queues_of
from aesp_proxy.intercept.resolver.stand_ins import NAMES_MAX, StandIns
from aesp_proxy.intercept.shared_names import SharedNames
from aesp_proxy.normalize.dns_answer import Resolved

ADDRESS, OTHER = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def workers(count: int) -> list[SharedNames]:
    made = []
    for queue in queues_of("names", count):
        (_, inbox), *others = queue
        made.append(SharedNames(inbox, [sock for _, sock in others]))
    return made


def closed(names: list[SharedNames]) -> None:
    for each in names:
        for sock in (each._inbox, *each._others):
            sock.close()


def test_what_one_has_answered_all_know():
    names = workers(3)
    names[1].remember("a.example", [ADDRESS, OTHER], ttl_s=5, now=100.0)
    names[2].remember("b.example", [OTHER], ttl_s=5, now=101.0)
    for each in names:
        assert each.of(ADDRESS, now=102.0) == ("a.example",)
        assert set(each.of(OTHER, now=102.0)) == {"a.example", "b.example"}
        assert each.of(ADDRESS, now=1e6) == ()
    closed(names)


def test_one_that_takes_nothing_holds_up_nobody_and_knows_no_more_than_it_took():
    names = workers(2)
    for number in range(5_000):
        names[0].remember(f"n{number}.example", [ip_address(number)], ttl_s=5, now=0.0)
    assert names[1].of(ip_address(0), now=1.0) == ("n0.example",)
    assert names[1].of(ip_address(4_999), now=1.0) == ()
    assert names[0].of(ip_address(4_999), now=1.0) == ("n4999.example",)
    closed(names)


def test_it_is_told_when_nobody_is_left_to_tell_anything():
    names = workers(2)
    assert names[0].hear()
    for sock in names[1]._others:
        sock.close()
    assert not names[0].hear()
    names[1].remember("a.example", [ADDRESS], ttl_s=5, now=0.0)
    closed(names)


def test_one_worker_alone_has_no_queue():
    assert queues_of("names", 1) == [[]]


def test_stand_ins_of_two_workers_are_never_the_same_and_stay_in_their_range():
    local = Resolved(addresses=(ip_address("127.0.0.1"), ip_address("::1")),
                     rdatas=(b"", b""), ttl_s=1, exists=True)  # fmt: skip
    seen = set()
    for place in (0, 1, 63):
        stand_ins = StandIns(place=place, places=64)
        for number in range(NAMES_MAX // 4):
            four, _six = stand_ins.told(f"n{number}", local).addresses
            seen.add(four)
    ends = min(seen), max(seen)
    assert all(str(end).startswith(("198.18.", "198.19.")) for end in ends)
    assert len(seen) == 3 * min(NAMES_MAX // 4, 131_000 // 64)

"""Break one part of a running proxy while a case is played, and mend it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
from egress_lab import Proxy

from aesp_proxy.daemon import pipeline as pipeline_module
from aesp_proxy.decide.secrets.body import StreamPolicy


class BrokenGuard:
    """A guard with a bug."""

    name = "broken"
    grants = False

    def check(self, event: object) -> None:
        raise RuntimeError("a bug")


def _broken(*_: object, **__: object) -> None:
    raise RuntimeError("a bug")


@contextmanager
def guard_raises(proxy: Proxy) -> Iterator[None]:
    """One guard among the others fails."""
    guards = (*proxy.pipeline.snapshot.guards, BrokenGuard())
    with _snapshot(proxy, guards=guards):
        yield


@contextmanager
def no_guard(proxy: Proxy) -> Iterator[None]:
    """Nobody answers."""
    with _snapshot(proxy, guards=()):
        yield


@contextmanager
def _snapshot(proxy: Proxy, **changes: object) -> Iterator[None]:
    real = proxy.pipeline.snapshot
    proxy.pipeline.snapshot = dataclasses.replace(real, **changes)  # type: ignore[arg-type]
    try:
        yield
    finally:
        proxy.pipeline.snapshot = real


def _patched(find: Callable[[Proxy], tuple[object, str]]) -> Callable[[Proxy], object]:
    @contextmanager
    def broken(proxy: Proxy) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*find(proxy), _broken)
            yield

    return broken


def _scan_class(proxy: Proxy) -> tuple[object, str]:
    scanner = proxy.pipeline.snapshot.scanner
    assert scanner is not None
    return type(scanner.stream("body", policy=StreamPolicy())), "feed"


@contextmanager
def record_fails(proxy: Proxy) -> Iterator[None]:
    """The journal's disk is full."""
    proxy.journal.broken = True
    try:
        yield
    finally:
        proxy.journal.broken = False


FAULTS: dict[str, Callable[[Proxy], AbstractContextManager[object]]] = {
    "none": lambda _: nullcontext(),
    "guard-raises": guard_raises,
    "no-guard": no_guard,
    "engine-raises": _patched(lambda _: (pipeline_module, "decide")),  # type: ignore[dict-item]
    "scan-raises": _patched(_scan_class),  # type: ignore[dict-item]
    "interceptor-raises": _patched(lambda p: (p.pipeline, "request")),  # type: ignore[dict-item]
    "record-fails": record_fails,
}

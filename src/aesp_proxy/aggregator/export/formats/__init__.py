"""The formats by name: each a pure function from one event to JSON values or a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aesp_proxy.aggregator.export.formats.cef import cef_line
from aesp_proxy.aggregator.export.formats.cim import siem_event
from aesp_proxy.aggregator.export.formats.ecs import ecs_document
from aesp_proxy.aggregator.export.formats.ocsf import ocsf_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from aesp_proxy.aggregator.export.event import ExportEvent

FORMATS: Final[dict[str, Callable[[ExportEvent], dict[str, Any] | str]]] = {
    "ocsf": ocsf_event,
    "ecs": ecs_document,
    "cim": siem_event,
    "cef": cef_line,
}
LINE_FORMATS: Final = frozenset({"cef"})
"""Those that are one line of text and no JSON object."""

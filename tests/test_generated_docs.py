"""Documents that repeat code are generated, and say what the code says today."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_documents_are_current(generate):
    assert generate.stale() == [], "run `make docs`"


def test_a_page_that_says_something_else_is_found(generate, tmp_path, monkeypatch):
    for name, page in generate.PAGES.items():
        (tmp_path / name).write_text(page(), "utf-8")
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    assert generate.stale() == []
    (tmp_path / "reasons.md").write_text("nothing", "utf-8")
    (tmp_path / "cli.md").unlink()
    assert generate.stale() == ["cli.md", "reasons.md"]


def test_every_reason_and_exit_code_is_explained(generate):
    assert set(generate.REASONS) == set(generate.Reason)
    assert set(generate.EXITS) == set(generate.ExitCode)


def test_an_operation_without_a_sentence_fails(generate, monkeypatch):
    facts = generate.module_of(DOCS / "generate_facts.py")
    monkeypatch.delitem(facts.FUNCTIONS, "luhn")
    with pytest.raises(facts.UntoldError, match="luhn"):
        facts.page("")
    monkeypatch.setitem(facts.FUNCTIONS, "luhn", "Again.")
    monkeypatch.setitem(facts.MACRO_TEXTS, "none", "There is no such macro.")
    with pytest.raises(facts.UntoldError, match="none"):
        facts.page("")

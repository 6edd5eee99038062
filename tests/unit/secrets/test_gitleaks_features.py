"""Each feature of gitleaks' rule files changes what is told as gitleaks' documentation says."""

from __future__ import annotations

import pytest
from gitleaks_features import FEATURES, Feature

from aesp_proxy.decide.secrets.files import FileScanner
from aesp_proxy.decide.secrets.gitleaks import Options, parse_gitleaks


def _told(feature: Feature, *, used: bool) -> set[str]:
    options = Options(read=feature.more.__getitem__)
    rules = parse_gitleaks(feature.text(used=used), "g.toml", options)
    assert rules.warnings == ()
    scanner = FileScanner(rules)
    return {
        f"{name}:{one.rule.id}:{0 if one.rule.path_only else text.count(chr(10), 0, one.begin) + 1}"
        for name, text in feature.files.items()
        for one in scanner.scan(text.encode(), name.encode()).found
    }


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_tells_what_gitleaks_tells(name: str) -> None:
    feature = FEATURES[name]
    assert _told(feature, used=True) == feature.told
    assert _told(feature, used=False) == feature.otherwise

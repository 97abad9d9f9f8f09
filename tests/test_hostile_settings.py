"""Settings files: every key at its worst, and YAML that tries to grow."""

from __future__ import annotations

import pytest

from tests.hostile_cases import Case, check, parameters
from tests.hostile_settings import bounds, leaves, settings


@pytest.mark.parametrize("case", parameters(settings()))
def test_setting(case: Case, tmp_path, capfd, monkeypatch):
    check(case, tmp_path, capfd, monkeypatch)


def test_every_number_has_bounds():
    """What has none can make a run hang, fill the memory, or fail deep inside. Infinite change switches smoothness off."""
    without = {key for key, field in leaves() if field.annotation in (int, float) and set(bounds(field)) != {"lowest", "highest"}}
    assert {key for key in without if not key.startswith("smoothness.")} == set()

"""Heads, networks, landmarkers and cameras: damaged, absurd, or wanting to run something."""

from __future__ import annotations

import pytest

from tests.hostile_cases import Case, check, parameters
from tests.hostile_models import models


@pytest.mark.parametrize("case", parameters(models()))
def test_model(case: Case, tmp_path, capfd, monkeypatch):
    check(case, tmp_path, capfd, monkeypatch)



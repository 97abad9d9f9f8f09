"""Bad and unusual photos, animations and folders of pictures: a result, or one clear line, and nothing left behind."""

from __future__ import annotations

import pytest

from tests.hostile_cases import Case, check, parameters
from tests.hostile_pictures import pictures


@pytest.mark.parametrize("case", parameters(pictures()))
def test_picture(case: Case, tmp_path, capfd, monkeypatch):
    check(case, tmp_path, capfd, monkeypatch)

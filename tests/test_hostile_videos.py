"""Bad and unusual videos: a result, or one clear line, and nothing left behind."""

from __future__ import annotations

import pytest

from tests.hostile_cases import Case, check, parameters
from tests.hostile_videos import videos


@pytest.mark.parametrize("case", parameters(videos()))
def test_video(case: Case, tmp_path, capfd, monkeypatch):
    check(case, tmp_path, capfd, monkeypatch)

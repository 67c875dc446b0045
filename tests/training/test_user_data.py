"""What `--check` calls ready trains, and what it refuses is refused, for the same reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastseg_training.build_trainer import open_data
from fastseg_training.config import TrainConfig

from fastseg.data import DataError
from tests.fastseg.data.user_data import CASES, Case

ANOTHER_REASON = {"no train": "no split 'train'"}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_training_starts_on_what_the_check_calls_ready_and_on_nothing_else(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case.write(tmp_path)
    config = TrainConfig(data=case.spec(tmp_path))
    if not case.wrong:
        data = open_data(config)
        assert len(data.train) and data.pixels_K.all()
        assert re.search(case.said, capsys.readouterr().err)
        return
    with pytest.raises(DataError) as refused:
        open_data(config)
    assert re.search(ANOTHER_REASON.get(case.name, case.wrong), str(refused.value))

import math

import pytest
from fastseg_training.progress import TrainingProgress


@pytest.mark.parametrize(
    ("miou", "line"), [(0.5, "loss 1.000, mIoU 0.5000, "), (math.nan, "loss 1.000, ")]
)
def test_a_log_names_the_miou_where_there_is_a_validation_split(
    capsys: pytest.CaptureFixture[str], miou: float, line: str
) -> None:
    with TrainingProgress() as progress:
        progress.report(7, 1.0, miou)
    assert capsys.readouterr().err == f"step 7: {line}0 images/s\n"

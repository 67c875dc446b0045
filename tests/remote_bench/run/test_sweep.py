import pytest
from remote_bench.host.errors import UsageError
from remote_bench.run.sweep import parse_sweep


def test_a_sweep_has_every_variant_in_every_size() -> None:
    swept = parse_sweep("nano,base", "64X32,96x64")
    assert [(one.variant, one.width, one.height) for one in swept] == [
        (variant, *size) for variant in ("nano", "base") for size in ((64, 32), (96, 64))
    ]


def test_a_size_of_a_sweep_that_is_none_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="--sizes: cannot read the size '512'; write WxH"):
        parse_sweep("nano", "64x32,512")

"""The code that travels with faults on demand in it, and bundles of any size."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from remote_bench.link import payload

from tests.doubles.tiny_bundle import full_plan, noise, strongest_channel

STUB = Path(__file__).parents[1] / "remote_bench/stub_runtime.py"
_INIT = f"{payload.RUNTIME_PATH}/fastseg_runtime/__init__.py"


def faulty_code(faults: dict[str, object]) -> bytes:
    """Return payload.code_zip() with the runtime of stub_runtime.py, which describes the faults."""
    content = io.BytesIO(payload.code_zip())
    with zipfile.ZipFile(content) as good, zipfile.ZipFile(io.BytesIO(), "w") as bad:
        for name in good.namelist():
            bad.writestr(name, STUB.read_bytes() if name == _INIT else good.read(name))
        bad.writestr("faults.json", json.dumps(faults))
        file = bad.fp
    assert isinstance(file, io.BytesIO)
    return file.getvalue()


def make_bundle(path: Path, more_bytes: int = 0) -> Path:
    """Write a bundle with a network of one operator, and noise for an engine that nobody has."""
    plan = full_plan().with_scene(noise(seed=1), strongest_channel(noise(seed=1)))
    if more_bytes:
        content = np.random.default_rng(0).bytes(more_bytes)
        plan = plan.with_artifact("phone", content, "coreml", requires={"backend": "coreml"})
    return plan.write(path)

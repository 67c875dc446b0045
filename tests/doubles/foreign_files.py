"""Files of other kinds than the one that was expected, real wherever a library makes them."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from tests.doubles.tiny_onnx import tiny_onnx

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 13\n"


def _torch(content: object, old: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def _exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(1),)), buffer)
    return buffer.getvalue()


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


# Kind as fastseg_runtime.bundle.file_kind says it -> functions that make one.
FOREIGN: dict[str, tuple[Callable[[], bytes], ...]] = {
    "an ONNX model": (tiny_onnx, lambda: b"\x08\x08\x12\x07pytorch\x1a\x032.1:\x05"),
    "a TFLite model": (lambda: b"\x1c\0\0\0TFL3" + bytes(99),),
    "a TensorRT engine": (lambda: b"ptrt" + bytes(99), lambda: b"ftrt" + bytes(99)),
    "a fastseg bundle": (lambda: _zip("manifest.json", "artifacts/a/model.onnx"),),
    "a program of torch.export": (_exported,),
    "a TorchScript program": (lambda: _zip("m/data.pkl", "m/constants.pkl", "m/version"),),
    "a zip archive": (lambda: _zip("readme.txt"),),
    "a zip archive that is damaged or cut short": (lambda: _torch({"a": torch.ones(9)})[:-99],),
    "a NumPy archive": (_npz,),
    "a NumPy array": (lambda: b"\x93NUMPY\x01\0" + bytes(99),),
    "a PNG picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99),),
    "a JPEG picture": (lambda: b"\xff\xd8\xff\xe0" + bytes(99),),
    "an HDF5 file, as Keras writes it": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99),),
    "an HTML page, as a failed download leaves it": (
        lambda: b"\n <!DOCTYPE html><html>404</html>",
        lambda: b"<HTML><body>sign in</body>",
    ),
    "a Git LFS pointer, not the file it stands for": (lambda: LFS,),
    "a text file": (lambda: b'{"weights": 1}', lambda: ("ä" * 400).encode()),
    "an empty file": (lambda: b"",),
    "a gzip archive": (lambda: b"\x1f\x8b\x08" + bytes(99),),
    "a tar archive": (lambda: bytes(257) + b"ustar" + bytes(300),),
    "a file of an unknown kind": (lambda: bytes(range(255, 0, -1)),),
}
# What torch.load() may look at, and refuses.
UNSAFE: dict[str, tuple[Callable[[], bytes], ...]] = {
    "a torch file": (
        lambda: _torch({"a": Path("x")}),
        lambda: _torch(nn.Linear(1, 1)),
        lambda: _torch(nn.Linear(1, 1), old=True),
    ),
    "a pickle": (
        lambda: pickle.dumps({"a": Path("x")}),
        lambda: pickle.dumps([nn.Linear(1, 1)], protocol=2),
    ),
}
# What holds weights.
OURS: dict[str, tuple[Callable[[], bytes], ...]] = {
    "a torch file": (
        lambda: _torch({"a": torch.ones(2)}),
        lambda: _torch({"a": torch.ones(2)}, old=True),
    ),
    "a safetensors file": (lambda: save({"a": torch.ones(2)}),),
}


def each(*tables: dict[str, tuple[Callable[[], bytes], ...]]) -> list[tuple[str, bytes]]:
    """Return (kind, content) of every file of some tables."""
    return [(kind, make()) for table in tables for kind, makers in table.items() for make in makers]

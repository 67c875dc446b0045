"""An ONNX file as a teacher: a picture in, logits or probabilities out, by ONNX Runtime."""

from pathlib import Path
from typing import Any

import onnxruntime
import torch
from fastseg_runtime.bundle.named_files import check_onnx
from torch import Tensor

from fastseg.data import Array
from fastseg.normalization import Normalization
from fastseg_training.config import ConfigError

FLOAT, BYTE = "tensor(float)", "tensor(uint8)"


class OnnxScores:
    """Runs an ONNX file on pictures.

    Its input is (1, 3, H, W) float, normalised here, or the bytes themselves, (1, H, W, 3) uint8,
    as fastseg-export writes it; its first output (1, C, h, w) float.

    Args:
        path: the file.
        normalization: for a float input.
        threads: of the CPU; 0 leaves ONNX Runtime the choice.

    Raises:
        OSError: it cannot be read.
        ConfigError, BundleError: it does not load, takes or gives something else, or names other
            files.
    """

    def __init__(self, path: Path, normalization: Normalization, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors come as exceptions
        options.intra_op_num_threads = threads
        content = path.read_bytes()
        check_onnx(content, str(path))  # it may name files, which ONNX Runtime would open
        try:
            self._session: Any = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class of its own for each kind of damage
            words = " ".join(str(error).split())[:200]
            raise ConfigError(f"{path} is no ONNX file that loads here: {words}") from error
        self._path, self._normalization = path, normalization
        inputs, output = self._session.get_inputs(), self._session.get_outputs()[0]
        taken = [(value.type, value.shape) for value in inputs]
        self._takes_bytes = taken[0][0] == BYTE
        if len(taken) != 1 or not (_is_image(*taken[0]) and output.type == FLOAT):
            raise ConfigError(
                f"{path} takes {taken} and gives {output.type}; expected one picture, "
                f"{FLOAT} (1, 3, H, W) or {BYTE} (1, H, W, 3), and logits {FLOAT} (1, C, h, w)"
                " (of fastseg's own: fastseg-export --output logits)"
            )

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) that it takes, None if it takes any."""
        shape = self._session.get_inputs()[0].shape
        height, width = shape[1:3] if self._takes_bytes else shape[2:4]
        return (width, height) if isinstance(width, int) and isinstance(height, int) else None

    def __call__(self, image_1HW3: Array) -> Tensor:
        """Return the scores (1, C, h, w) of a uint8 picture.

        Raises:
            ConfigError: it fails at that size, or gives something else.
        """
        image = image_1HW3
        if not self._takes_bytes:
            image = self._normalization.normalise(torch.from_numpy(image_1HW3)).contiguous().numpy()
        try:
            scores = self._session.run(None, {self._session.get_inputs()[0].name: image})[0]
        except Exception as error:
            size = f"{image_1HW3.shape[2]}x{image_1HW3.shape[1]}"
            words = " ".join(str(error).split())[:200]
            raise ConfigError(f"{self._path}, tried at {size}: {words}") from error
        if scores.ndim != 4:
            raise ConfigError(f"{self._path} gives {scores.shape}; expected logits (1, C, h, w)")
        return torch.from_numpy(scores)


def _is_image(kind: str, shape: list[Any]) -> bool:
    channel = {FLOAT: 1, BYTE: 3}.get(kind)
    return channel is not None and len(shape) == 4 and shape[channel] == 3

"""An ONNX file as a network: run by ONNX Runtime as it is, called like any torch module.

Shape letters: N batch, K classes, H and W pixels of the picture, h and w of what the file gives.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from fastseg_runtime.bundle.manifest import (
    METADATA_KEY,
    ClassInfo,
    Manifest,
    ManifestError,
    numbered_classes,
)
from fastseg_runtime.bundle.named_files import MAX_BYTES, check_onnx, files_beside
from fastseg_runtime.engines.image_port import ImagePort, image_port
from fastseg_runtime.engines.own_onnx import class_axis, lies_evenly
from torch import Tensor, nn

from fastseg.checkpoint import CheckpointError
from fastseg.cost import StageCost
from fastseg.normalization import CENTRED, Normalization
from fastseg.onnx_graph import cost_of, graph_at
from fastseg.outputs import Reading, ReadingError, leaves

DOMAIN = "fastseg"  # of the two steps that exporters put the file's own nodes in place of
RUN, ONE_HOT = f"{DOMAIN}::Run", f"{DOMAIN}::OneHot"
_SIGNED = dict.fromkeys(("uint16", "uint32", "uint64"), "int64")  # of which torch has no minimum
MAX_WORDS = 200  # letters of ONNX Runtime's message


class OnnxFile(nn.Module):
    """A file with one picture in, and logits or class ids among what it gives.

    Ids become scores, 1 for the class and 0 for the others, so that they are read as logits are.

    Args:
        path: the file; weights may lie in files beside it.

    Attributes:
        path: as given.
        num_classes: K, which ids do not say; None: ids stay ids.
        chosen: the one output, by name or index, whose ids become scores; "": those of all.
        port: how it takes its picture.
        manifest: what the file says of itself; None: fastseg-export did not write it.

    Raises:
        OSError: it cannot be read.
        CheckpointError: it does not load, takes anything else than one picture, or says of itself
            what cannot be read.
        BundleError: it is damaged, or names files that do not lie beside it.
    """

    num_classes: int | None = None
    chosen = ""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        content, beside = read(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors come as exceptions
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            # From bytes, names would be looked up in the current folder.
            self._session: Any = onnxruntime.InferenceSession(
                str(path) if beside else content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class of its own for each kind of damage
            raise CheckpointError(
                f"{path} is no ONNX file that loads here: {_words(error)}"
            ) from error
        try:
            self.port: ImagePort = image_port(self._session.get_inputs())
        except ValueError as error:
            raise CheckpointError(f"{path} {error}") from error
        self.names = [output.name for output in self._session.get_outputs()]
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        try:
            self.manifest = Manifest.from_json(text) if text else None
        except ManifestError as error:
            raise CheckpointError(
                f"{path}: what it says of itself: {error}; export it again, or remove its metadata "
                f"entry {METADATA_KEY} to run it as any other ONNX file"
            ) from error
        digest = hashlib.sha256(content)
        for name in sorted(beside):
            digest.update((path.parent / name).read_bytes())
        # What tells it from other networks, for those who hash the state of a module.
        self.register_buffer(
            "sha256", torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
        )

    def check_normalization(self, said: Normalization | None) -> None:
        """Raise CheckpointError if pictures need a normalisation that is not said, or have none."""
        if not self.port.takes_bytes and said is None:
            raise CheckpointError(
                f"{self.path} takes float pictures and does not say how they are normalised: "
                "--normalization imagenet, unit, centred or a TOML file"
            )
        order_alone = said is None or said == replace(CENTRED, color=said.color)
        if self.port.takes_bytes and not order_alone:
            raise CheckpointError(f"{self.path} takes bytes as they are; leave --normalization out")

    def size_for(self, wanted: tuple[int, int] | None) -> tuple[int, int]:
        """Return the (width, height) to run at; see ImagePort, but for the CheckpointError."""
        try:
            return self.port.size_for(wanted)
        except ValueError as error:
            raise CheckpointError(f"{self.path} {error}") from error

    def classes(self, size: tuple[int, int], output_name: str) -> tuple[ClassInfo, ...]:
        """Return the classes that the file names if we wrote it, else numbers for its logits.

        Raises:
            CheckpointError: it gives ids, or nothing that can be logits.
        """
        if self.manifest is not None:
            return self.manifest.classes
        image_13HW = torch.zeros(1, 3, size[1], size[0])
        result = self(image_13HW)
        try:
            choice = Reading(None, output_name).choose(result, image_13HW)
            count = leaves(result)[choice.path].shape[1]
        except ReadingError as error:
            ids = any(not value.is_floating_point() for value in result.values())
            why = (
                "gives class ids, of how many classes they do not say: --classes FILE"
                if ids
                else error
            )
            raise CheckpointError(f"{self.path} {why}") from error
        return numbered_classes(max(2, count))

    def __deepcopy__(self, memo: object) -> OnnxFile:
        """Return itself: a session cannot be copied, and nothing in it changes."""
        return self

    def forward(self, image_N3HW: Tensor) -> dict[str, Tensor]:
        """Return what the file gives, by the names of its outputs.

        Args:
            image_N3HW: normalised as the file wants it; for one that takes bytes (x - 128) / 64,
                of which the bytes are restored exactly.
        """
        picture = image_N3HW
        if self.port.takes_bytes:
            # Not as a product and a sum, which int8 would quantize.
            (mean, *_), (std, *_) = CENTRED.mean, CENTRED.std
            picture = (picture - -mean / std) / (1 / std)
        if self.port.channels_last:
            picture = picture.permute(0, 2, 3, 1)
        given = _Run.apply(picture, self)  # type: ignore[no-untyped-call]
        image, chosen = tuple(image_N3HW.shape), self.chosen
        if chosen not in self.names:  # a name may be a number too
            by_index = {str(index): name for index, name in enumerate(self.names)}
            chosen = by_index.get(chosen, chosen)
        return {
            name: self._scores(value, image) if chosen in ("", name) else value
            for name, value in zip(self.names, given, strict=True)
        }

    def cost(self, size: tuple[int, int]) -> StageCost:
        """Return what a picture of (width, height) costs, counted on the graph."""
        found = cost_of(graph_at(self.path, self.port, size))
        return StageCost("graph", found.parameters, found.macs, found.activation_bytes)

    def run(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Run the file on what its input takes, but for the type."""
        array = picture.detach().cpu().numpy()
        if self.port.takes_bytes:
            array = array.round().astype(np.uint8)
        try:
            found = self._session.run(None, {self.port.name: np.ascontiguousarray(array)})
        except Exception as error:
            shape = "x".join(map(str, array.shape))
            raise CheckpointError(f"{self.path}, tried at {shape}: {_words(error)}") from error
        return tuple(
            torch.from_numpy(value.astype(_SIGNED.get(value.dtype.name, value.dtype)))
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
            else torch.zeros(0)  # a sequence, text: nothing that could be logits
            for value in found
        )

    def _scores(self, value: Tensor, image: tuple[int, ...]) -> Tensor:
        """Return logits (N, K, h, w) or scores of ids (N, K, H, W); what is neither as it is."""
        size = image[3], image[2]
        if value.is_floating_point():
            axis = 1
            if value.ndim == 4 and self.port.channels_last:
                try:
                    axis = class_axis(tuple(value.shape), size, True, self.num_classes) or 1
                except ValueError as error:
                    raise CheckpointError(f"{self.path} {error}") from error
            return (value.permute(0, 3, 1, 2) if axis == 3 else value).float()
        ids = value
        if value.ndim == 4 and 1 in (value.shape[1], value.shape[3]):
            ids = value[..., 0] if value.shape[3] == 1 else value[:, 0]
        if self.num_classes is None or ids.ndim != 3 or ids.dtype == torch.bool:
            return value
        if not lies_evenly(tuple(ids.shape[1:]), size):
            raise CheckpointError(
                f"{self.path} gives ids {tuple(value.shape)}; expected one position for every s x "
                f"s pixels of {size[0]}x{size[1]}"
            )
        if ids.shape[1:] != image[2:]:
            ids = F.interpolate(ids[:, None].float(), size=image[2:], mode="nearest")[:, 0].long()
        scores: Tensor = _OneHot.apply(ids, self)  # type: ignore[no-untyped-call]
        return scores


def read(path: Path) -> tuple[bytes, set[str]]:
    """Return the bytes of an ONNX file, and which files beside it hold weights of it.

    Raises:
        OSError: it cannot be read.
        CheckpointError: larger than any.
        BundleError: it is damaged, or names a file that does not lie beside it.
    """
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(
            f"{path} has more than {MAX_BYTES} bytes, which no ONNX file can have"
        )
    content = path.read_bytes()
    return content, check_onnx(content, str(path), files_beside(path))


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_WORDS]


class _Run(torch.autograd.Function):
    """The file's nodes as one step, which a torch exporter writes down as such."""

    @staticmethod
    def forward(ctx: Any, picture: Tensor, file: OnnxFile) -> tuple[Tensor, ...]:
        with torch._C.DisableTorchFunction():  # what follows values of pictures would see them read
            return tuple(value.to(picture.device) for value in file.run(picture))

    @staticmethod
    def symbolic(g: Any, picture: Any, file: OnnxFile) -> Any:
        return g.op(RUN, picture, outputs=len(file.names))


class _OneHot(torch.autograd.Function):
    """Ids (N, H, W) as scores (N, K, H, W)."""

    @staticmethod
    def forward(ctx: Any, ids_NHW: Tensor, file: OnnxFile) -> Tensor:
        with torch._C.DisableTorchFunction():
            count, least, most = file.num_classes or 0, int(ids_NHW.min()), int(ids_NHW.max())
            if most >= count or least < 0:
                several = len(file.names) > 1 and not file.chosen
                among = ", ".join(file.names)
                which = f", or --output-name says which of {among} are the class ids"
                advice = "name each that it knows in --classes"
                if least < 0 or (most, count) == (255, 2):  # of a mask as a picture
                    added = "offset" if least < 0 else "factor 255"
                    advice = f"ids from 0 on are expected: export it without the {added}"
                raise CheckpointError(
                    f"{file.path} gives class id {min(least, 0) or most}, {count} classes are "
                    f"named; {advice}{which * several}"
                )
            return F.one_hot(ids_NHW.long(), count).permute(0, 3, 1, 2).float()

    @staticmethod
    def symbolic(g: Any, ids_NHW: Any, file: OnnxFile) -> Any:
        return g.op(ONE_HOT, ids_NHW)

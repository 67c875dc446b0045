"""One way to name a network, for every command: a checkpoint, a shipped one, or one's own."""

import dataclasses
import hashlib
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from fastseg_runtime.bundle.file_kind import ONNX, file_kind
from fastseg_runtime.bundle.manifest import ClassInfo
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fastseg import pretrained
from fastseg.checkpoint import (
    CheckpointError,
    CheckpointInfo,
    load_checkpoint,
    misfit,
    read_info,
    read_state_dict,
)
from fastseg.deploy import DeployGraph, OutputKind
from fastseg.logit_check import check_logits, noise
from fastseg.normalization import Normalization
from fastseg.outputs import Reading
from fastseg.own_code import call_own, import_own, own_code

if TYPE_CHECKING:
    from fastseg.backend_onnx import OnnxFile

BACKGROUND = ClassInfo("background", (0, 0, 0))
TORCH = (".pth", ".pt")  # plain state dicts, which say nothing of pictures
SAMPLED = 64  # logits, to know a network by


@dataclasses.dataclass(frozen=True)
class Network:
    """A network in eval mode with what is known of it.

    Attributes:
        model: the author's module, as it is.
        info: classes, size, normalisation and provenance.
        name: for files: "base-camvid".
        sha256: of the weights, as names, shapes and values, and of how they are used where that
            is not the default: the identity of the network.
        output_name: of several outputs, the one that is the logits; "": the one that can be.
        threshold: of the probability above which one logit means the second class.
        onnx_file: the ONNX file that the module runs; None: it is torch's own.
    """

    model: nn.Module
    info: CheckpointInfo
    name: str
    sha256: str
    output_name: str = ""
    threshold: float = Reading.threshold
    onnx_file: Path | None = None

    def logits(self, image_NHW3: Tensor) -> Tensor:
        """Run the author's module as its author calls it: the reference for all that we make.

        Nothing of the deploy graph is used here: what is judged by this must not be in it.

        Args:
            image_NHW3: uint8 RGB (N, H, W, 3) at the network's input size.

        Returns:
            Float logits (N, K, h, w), K at least 2, as large as the module gives them.

        Raises:
            CheckpointError: the module fails, or gives no logits for each class.
        """
        width, height = image_NHW3.shape[2], image_NHW3.shape[1]
        image_N3HW = self.info.input_normalization().normalise(image_NHW3)
        doing = f"{self.name} at {width}x{height}"
        with own_code(doing, type(self.model).forward), torch.no_grad():
            result = self.model(image_N3HW)
        try:
            return self.reading.logits(result, image_N3HW)
        except ValueError as error:
            raise CheckpointError(f"{self.name} {error}") from error

    def sample(self) -> tuple[float, ...]:
        """Return some of its logits for noise: what it computes with may be no weight of it."""
        logits = self.logits(noise((self.info.width, self.info.height))).flatten()
        places = torch.arange(SAMPLED) * (len(logits) - 1) // (SAMPLED - 1)
        return tuple(logits[places].tolist())

    @property
    def reading(self) -> Reading:
        """How its logits are read off what it gives."""
        return Reading(len(self.info.classes), self.output_name, self.threshold)

    def check(self, spec: str = "") -> list[str]:
        """Run it once, see check_logits, at its own size; `spec` is its name in messages."""
        size, own = (self.info.width, self.info.height), self.info.input_normalization()
        return check_logits(spec or self.name, self.model, self.reading, size, own)

    def reading_table(self) -> dict[str, Any] | None:
        """Return what a user said of its outputs, as JSON has it; None for nothing."""
        said = {"output": self.output_name, "threshold": self.threshold}
        return None if said == {"output": "", "threshold": Reading.threshold} else said

    def graph(
        self,
        output: OutputKind = "classes",
        mask_stride: int = 1,
        keep_norms: Collection[str] = (),
    ) -> DeployGraph:
        """Return the deploy graph, camera bytes in, in eval mode; see DeployGraph."""
        info = self.info
        return DeployGraph(
            self.model,
            info.width,
            info.height,
            mean=info.mean,
            std=info.std,
            output=output,
            mask_stride=mask_stride,
            normalization=info.normalization,
            reading=self.reading,
            keep_norms=keep_norms,
        ).eval()


def open_network(
    spec: str | Path,
    classes: tuple[ClassInfo, ...] | None = None,
    weights: str | Path | None = None,
    size: tuple[int, int] | None = None,
    normalization: Normalization | None = None,
    output_name: str = "",
    threshold: float = Reading.threshold,
    fit: str | None = None,
) -> Network:
    """Open what a user names.

    Args:
        spec: a checkpoint file, the name of shipped weights ("base-camvid"), or
            "package.module:factory", a callable that returns a torch module (normalised image
            in, logits out), or an ONNX file. The current folder is searched for the module too.
        classes: for one's own network: its classes, where one alone is held against "background",
            which becomes class 0; for a checkpoint: other names and colours; for an ONNX file
            None numbers them, unless it gives ids.
        weights: for one's own network: a state dict (.pth, .pt, .safetensors), the name of
            shipped weights, or a checkpoint
            that fastseg-train wrote, whose header then describes the network.
        size: (width, height) to run at, instead of the checkpoint's.
        normalization: the network's own; None: what the checkpoint says, else (x - 128) / 64.
        output_name: of one's own network's outputs, the path of the logits: "out", "1", "aux.0".
        threshold: of the probability above which one logit means the second class; 0.5 where the
            weights' header names none.
        fit: "stretch" or "letterbox", instead of the checkpoint's or of an ONNX file's of ours.

    Raises:
        CheckpointError: the network cannot be had from this.
        BundleError: an ONNX file that is damaged, or names files that do not lie beside it.
        ValueError: a threshold that is no probability, a fit that is not known.
    """
    Reading(None, output_name, threshold)
    if weights is not None and not is_factory(spec):
        raise CheckpointError(f"{spec} holds its weights; leave --weights out")
    onnx_file = Path(spec) if is_onnx(spec) else None
    if onnx_file is not None:
        model, info = _from_onnx(onnx_file, classes, size, normalization, output_name)
    elif is_factory(spec):
        model, info = _from_factory(str(spec), classes, weights, normalization)
    else:
        if output_name or threshold != Reading.threshold:
            raise CheckpointError(
                f"{spec} is no network of your own: it has one output, a logit for each class; "
                "leave --output-name and --threshold out"
            )
        load = load_checkpoint if Path(spec).suffix or Path(spec).exists() else pretrained.load
        model, info = load(str(spec), None if classes is None else len(classes))
        info = _with_normalization(info, normalization, spec, fixed=Path(spec).suffix not in TORCH)
        if classes is not None:
            info = dataclasses.replace(info, classes=classes)
    output_name = output_name or info.output_name
    threshold = info.threshold if threshold == Reading.threshold else threshold
    if size is not None:
        info = dataclasses.replace(info, width=size[0], height=size[1])
    if fit is not None:
        info = dataclasses.replace(info, fit=fit)
    with own_code(f"{spec} in eval()", type(model)):
        model.eval()
    used = Network(model, info, name_of(spec), "", output_name, threshold, onnx_file)
    return dataclasses.replace(used, sha256=hash_weights(model.state_dict(), _how_used(used)))


def name_of(spec: str | Path) -> str:
    """Return a network's name: its run's folder, the file's, or the factory's; "" for ""."""
    if is_factory(spec):
        return str(spec).rpartition(":")[2].lower()
    path = Path(spec)
    return path.absolute().parent.name if path.stem == "model" else path.stem


def hash_weights(weights: dict[str, Tensor], how_used: str = "") -> str:
    """Return the SHA-256 of names, types, shapes and values, in the order of names.

    It begins with what else makes another network of the same weights.
    """
    digest = hashlib.sha256(how_used.encode())
    for name in sorted(weights):
        value = weights[name]
        if not isinstance(value, Tensor):  # what get_extra_state() gives, packed parameters
            digest.update(re.sub(r" at 0x[0-9a-f]+", "", f"{name} {value!r}\n").encode())
            continue
        value = value.dequantize() if value.is_quantized else value.to_dense()
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _how_used(network: Network) -> str:
    """Return what besides its weights decides a network's class maps, "" where nothing does."""
    fit = "" if network.info.fit == CheckpointInfo.fit else network.info.fit
    parts = (network.info.normalization, network.reading_table(), fit)
    return "".join(f"{part}\n" for part in parts if part)


def is_factory(spec: str | Path) -> bool:
    """Return whether a network is named as package.module:factory."""
    module, _, name = str(spec).rpartition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def is_onnx(spec: str | Path) -> bool:
    """Return whether a network is named as an ONNX file, and holds nothing else if it is there."""
    path = Path(spec)
    named = path.suffix.lower() == ".onnx"
    return named and (not path.is_file() or file_kind(path) == ONNX)


def open_onnx(path: Path) -> "OnnxFile":
    """Open an ONNX file as a torch module.

    Raises:
        CheckpointError: it is not there, cannot be run here, or is no network of one picture.
        BundleError: it is damaged, or names files that do not lie beside it.
    """
    if not path.is_file():
        raise CheckpointError(f"no ONNX file {path}")
    try:
        from fastseg.backend_onnx import OnnxFile
    except ImportError as error:
        raise CheckpointError(
            f"{path} needs ONNX Runtime: pip install 'fastseg-edge[onnx]' ({error})"
        ) from error
    return OnnxFile(path)


def _from_onnx(
    path: Path,
    classes: tuple[ClassInfo, ...] | None,
    size: tuple[int, int] | None,
    normalization: Normalization | None,
    output_name: str,
) -> tuple[nn.Module, CheckpointInfo]:
    model = open_onnx(path)
    model.check_normalization(normalization)
    width, height = model.size_for(size)
    classes = classes or model.classes((width, height), output_name)
    info = CheckpointInfo(path.name, _against_background(str(path), classes), width, height)
    model.num_classes, model.chosen = len(info.classes), output_name
    if (said := model.manifest) is not None:  # what is made of it inherits that
        if len(model.names) > 1:  # a confidence lies beside
            model.chosen = output_name or model.names[0]
        info = dataclasses.replace(
            info,
            output_name=model.chosen,
            ignore_index=said.ignore_index,
            trained_on=said.model.trained_on,
            data_licence=said.model.data_licence,
            usage=said.model.usage,
            fit=said.input.resize,
        )
    return model, _with_normalization(info, normalization, path, fixed=False)


def _with_normalization(
    info: CheckpointInfo, wanted: Normalization | None, spec: str | Path, fixed: bool
) -> CheckpointInfo:
    """Return the description with the normalisation that a user named, if it can be another."""
    known = info.input_normalization()
    if wanted in (None, known):
        return info
    if fixed:
        raise CheckpointError(
            f"{spec} was trained with {known}, not with {wanted}; leave --normalization and "
            "--color out"
        )
    return dataclasses.replace(info, normalization=wanted)


def _from_factory(
    spec: str,
    classes: tuple[ClassInfo, ...] | None,
    weights: str | Path | None,
    normalization: Normalization | None,
) -> tuple[nn.Module, CheckpointInfo]:
    weights = None if weights is None else pretrained.file_of(weights)
    header = None if weights is None else read_info(weights)
    named = classes or (header.classes if header else None)
    if named is None:
        raise CheckpointError(f"{spec} needs the names of its classes: --classes FILE")
    model = _call_factory(spec, len(named))
    held = (*model.parameters(), *model.buffers())
    if any(map(is_lazy, held)):
        raise CheckpointError(f"{spec} has lazy modules; call the network once in the factory")
    if any(tensor.is_meta for tensor in held):
        raise CheckpointError(
            f"{spec} has tensors without values, on the meta device; give it some in the factory, "
            "by to_empty() and its weights, or make it on the CPU"
        )
    model.float()
    if weights is not None:
        tensors = read_state_dict(weights)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            why = misfit(model, tensors)
            raise CheckpointError(f"{weights} does not fit {spec}: {why}") from error
    info = header or CheckpointInfo(spec, named)
    info = _with_normalization(info, normalization, weights or spec, fixed=header is not None)
    return model, dataclasses.replace(info, variant=spec, classes=_against_background(spec, named))


def _against_background(spec: str, classes: tuple[ClassInfo, ...]) -> tuple[ClassInfo, ...]:
    """Return two classes where one is named: what is not that is "background", class 0."""
    if len(classes) != 1:
        return classes
    (only,) = classes
    if only.name.lower() == BACKGROUND.name:
        raise CheckpointError(
            f"{spec}: the one class is called {only.name!r}; name what is to be told from it"
        )
    print(
        f"{spec}: one class is named, so class 0 is 'background', 1 {only.name!r}", file=sys.stderr
    )
    color = (255, 255, 255) if only.color == BACKGROUND.color else BACKGROUND.color
    return (dataclasses.replace(BACKGROUND, color=color), only)


def _call_factory(spec: str, num_classes: int) -> nn.Module:
    if isinstance(import_own(spec), nn.Module):
        name = spec.rpartition(":")[2]
        raise CheckpointError(
            f"{spec} is a network and no factory; name a function that makes it: "
            f"def make_{name}(): return ..."
        )
    model = call_own(spec, num_classes=num_classes)
    model = getattr(model, "_orig_mod", model)  # torch.compile() wraps it: no exporter traces that
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"{spec} returned {type(model).__name__}, expected a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise CheckpointError(
            f"{spec} is TorchScript, which no exporter traces; return the module it was made from"
        )
    return model

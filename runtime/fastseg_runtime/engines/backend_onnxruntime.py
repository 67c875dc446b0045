"""ONNX Runtime: ONNX artifacts on any CPU; on NVIDIA GPUs through its providers if asked to."""

from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
import onnxruntime

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_runtime.bundle.manifest import (
    METADATA_KEY,
    Artifact,
    FileEntry,
    InputSpec,
    Manifest,
    ModelInfo,
    OutputSpec,
    numbered_classes,
)
from fastseg_runtime.bundle.named_files import check_onnx, files_beside
from fastseg_runtime.bundle.reader import BundleError
from fastseg_runtime.engines.backend import CONFIDENCE, ModelSource
from fastseg_runtime.engines.engine import ENGINES
from fastseg_runtime.engines.own_onnx import NOTHING_SAID, SAYS_ITSELF, OwnFile, OwnOnnx

# device -> execution providers, first choice first. The CPU also takes what the others cannot.
PROVIDERS: Dict[str, Tuple[str, ...]] = {
    "auto": ("CPUExecutionProvider",),
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": (
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ),
}
OWN_FILE = "own_file"  # in the extra of a bare file that is not ours: OwnFile as a table
MAX_CLASSES = 255  # a graph that gives ids does not say how many there are
_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
}


class OnnxRuntimeBackend:
    """A session whose input and output are bound to numpy buffers: no copy, no allocation."""

    def __init__(self) -> None:
        self._session: Optional[Any] = None
        self._binding: Any = None
        self._bound: Optional[Array] = None
        self._outputs: List[Array] = []
        self._own: Optional[OwnOnnx] = None

    def open(self, source: ModelSource) -> None:
        """Load the model; `device` is "cpu", "cuda", "tensorrt" or one with an index, "cuda:1".

        Raises:
            BundleError: the graph names files that the artifact has not.
            ValueError: an unknown device, or one that this onnxruntime was not built for; or a
                graph with other inputs or outputs than fastseg's.
        """
        providers = _providers(source.device)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors come as exceptions, the rest is noise
        options.enable_mem_pattern = False  # a plan of its memory costs a sixth more of it
        # Between frames the cores belong to capture and drawing, not to threads that spin.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if source.threads:
            options.intra_op_num_threads = source.threads
        content = source.read(source.artifact.entry)
        # From bytes, names would be looked up in the current folder.
        beside = check_onnx(content, source.artifact.entry, _siblings(source.artifact))
        model = str(source.locate()) if beside else content
        not_wanted: List[str] = []
        if _is_made_for_another(source.artifact):
            not_wanted = as_another_means_it(options)
        self._session = onnxruntime.InferenceSession(
            model, options, providers=providers, disabled_optimizers=not_wanted
        )
        wanted = PROVIDERS[source.device.partition(":")[0]][0]
        if self._session.get_providers()[0] != wanted:  # it takes the CPU then, silently
            raise RuntimeError(
                f"{wanted} does not load here, its CUDA or cuDNN libraries are missing or too old; "
                "see onnxruntime.ai/docs/execution-providers for the versions it needs"
            )
        if OWN_FILE in source.artifact.extra:
            said = from_table(OwnFile, source.artifact.extra[OWN_FILE], OWN_FILE)
            self._own = OwnOnnx(self._session, said)
            (width, height), spec = self._own.size, source.input
            if (width, height) != (spec.width, spec.height):
                raise ValueError(
                    f"{OWN_FILE}: runs at {width}x{height}, the manifest promises "
                    f"{spec.width}x{spec.height}; export it with fastseg-export"
                )
        else:
            self._bind(self._session, source)

    def infer(self, image_1HW3: Array) -> Union[Array, Tuple[Array, Array]]:
        """Run the network; see Backend.infer."""
        if self._session is None:
            raise RuntimeError("the session is closed; open the model again")
        if self._own is not None:
            return self._own.infer(image_1HW3)
        if image_1HW3 is not self._bound or self._binding_copies:
            self._binding.bind_cpu_input(self._input_name, image_1HW3)
            self._bound = image_1HW3  # the binding holds an address: keep the array alive
        self._session.run_with_iobinding(self._binding)
        result, *confidence = self._outputs
        return (result, confidence[0]) if confidence else result

    def close(self) -> None:
        """Free the session."""
        self._binding = self._bound = self._session = self._own = None

    def _bind(self, session: Any, source: ModelSource) -> None:
        image, outputs = _ports(session)
        expected = [1, source.input.height, source.input.width, 3]
        if image.type != "tensor(uint8)" or list(image.shape) != expected:
            raise ValueError(
                f"expected an ONNX graph with one input of tensor(uint8) {expected}, got "
                f"{image.type} {image.shape}; export it with fastseg-export"
            )
        self._input_name = image.name
        # What runs elsewhere gets its input copied when that is bound, not when it runs.
        self._binding_copies = session.get_providers()[0] != "CPUExecutionProvider"
        self._binding = session.io_binding()
        self._outputs = [self._bind_output(session, image, output) for output in outputs]

    def _bind_output(self, session: Any, image: Any, output: Any) -> Array:
        if output.type not in _TYPES:
            raise ValueError(f"expected class ids or float logits, the graph gives {output.type}")
        shape = output.shape
        if not all(isinstance(side, int) for side in shape):  # not written down: run it to see
            blank = np.zeros(image.shape, np.uint8)
            shape = session.run([output.name], {image.name: blank})[0].shape
        array = np.empty(shape, _TYPES[output.type])
        self._binding.bind_output(
            output.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
        )
        return array


def _is_made_for_another(artifact: Artifact) -> bool:
    """Return whether ONNX Runtime judges the graph in place of an engine that is built from it."""
    made_for = ENGINES.get(str(artifact.requires.get("backend")))
    return made_for is not None and made_for.builds


def as_another_means_it(options: Any) -> List[str]:
    """Set what makes ONNX Runtime compute Q/DQ as written; return the optimizers to leave out.

    Its integer kernels add pairs of products in 16 bits where the CPU has no int8 dot product
    (VPMADDUBSW of AVX2), which overflow with weights of 8 bits: cpu-* have 7 for that, graphs for
    other engines do not. And it gives biases the scale of input times weights: in fp16 that is 0
    for the small weights of a channel that hardly counts, and the bias, all that it has, is lost.
    """
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ["WeightBiasQuantization"]


def describe(path: Path, said: OwnFile = NOTHING_SAID) -> Manifest:
    """Read what a bare ONNX file says of itself.

    Without fastseg's metadata the size comes from the graph, and the classes are numbered.

    Args:
        path: of the file.
        said: what a user says of it.

    Raises:
        BundleError: it names other files than those beside it that begin with its own name, such
            as net.onnx.data beside net.onnx.
        ValueError: not an ONNX file, or one of which more has to be said.
    """
    content = path.read_bytes()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come as exceptions, the rest is noise
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    members = files_beside(path, bearing_its_name=True)
    try:
        beside = check_onnx(content, path.name, members)
        model = str(path) if beside else content
        session = onnxruntime.InferenceSession(model, options, providers=PROVIDERS["cpu"])
    except BundleError:
        raise
    except Exception as error:  # onnxruntime has a class of its own for each kind of damage
        raise ValueError(f"{path} is no ONNX file that loads here: {error}") from error
    try:
        manifest = _described(session, path.stem, said)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    weights = tuple(FileEntry(str(path.parent / name), members[name], "") for name in beside)
    artifacts = tuple(replace(artifact, files=weights) for artifact in manifest.artifacts)
    return replace(manifest, artifacts=artifacts)


def _described(session: Any, name: str, said: OwnFile) -> Manifest:
    metadata = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if metadata:
        if said != NOTHING_SAID:
            raise ValueError(SAYS_ITSELF)
        return Manifest.from_json(metadata)
    own = OwnOnnx(session, said)
    return Manifest(
        name=name,
        created="",
        tool="",
        model=ModelInfo("unknown", parameters=0, macs=0, checkpoint_sha256=""),
        classes=numbered_classes(own.num_classes or MAX_CLASSES),
        input=InputSpec(*own.size, resize=said.fit or InputSpec.resize),
        output=OutputSpec("logits" if own.num_classes else "classes", cover="image"),
        artifacts=(Artifact(name, "onnx", "", "", (), extra={OWN_FILE: asdict(said)}),),
    )


def _ports(session: Any) -> Tuple[Any, List[Any]]:
    """Return the one input of a graph, and its one output and the confidence beside that."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    beside = [output.name for output in outputs[1:]]
    if len(inputs) != 1 or not outputs or beside not in ([], [CONFIDENCE]):
        raise ValueError(
            "expected an ONNX graph with one input and one output, got "
            f"{len(inputs)} and {len(outputs)}; export it with fastseg-export"
        )
    return inputs[0], outputs


def _siblings(artifact: Artifact) -> Dict[str, int]:
    """Return plain name -> size of the files in the folder of the artifact's entry."""
    paths = [(PurePosixPath(file.path), file.bytes) for file in artifact.files]
    entry = PurePosixPath(artifact.entry)
    return {path.name: size for path, size in paths if path == entry.with_name(path.name) != entry}


def _providers(device: str) -> List[Any]:
    kind, _, index = device.partition(":")
    if kind not in PROVIDERS or not (index or "0").isdigit():
        raise ValueError(f"onnxruntime: no device {device!r}; choose one of {sorted(PROVIDERS)}")
    wanted, there = PROVIDERS[kind], onnxruntime.get_available_providers()
    if wanted[0] not in there:
        raise ValueError(
            f"device {device!r} needs {wanted[0]}, this onnxruntime has {', '.join(there)}: "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    options = {"device_id": index} if index else {}
    return [name if name in PROVIDERS["cpu"] else (name, options) for name in wanted]

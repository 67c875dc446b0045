"""QNN: networks compiled for a Snapdragon's NPU, by ONNX Runtime with Qualcomm's provider."""

import onnxruntime
import onnxruntime_qnn

from fastseg_runtime.bundle.named_files import check_onnx
from fastseg_runtime.engines.backend import ModelSource
from fastseg_runtime.engines.backend_onnxruntime import OnnxRuntimeBackend

PROVIDER = "QNNExecutionProvider"


class QnnBackend(OnnxRuntimeBackend):
    """A session on the NPU; on x86 Linux it is Qualcomm's simulator."""

    def open(self, source: ModelSource) -> None:
        """Load the compiled network; `device` is "auto" or "npu".

        Raises:
            BundleError: the file names others.
            ValueError: another device, or a network with other inputs or outputs than fastseg's.
            RuntimeError: there is no such NPU, or it is for another.
        """
        if source.device not in ("auto", "npu"):
            raise ValueError(f"qnn: no device {source.device!r}; choose npu")
        content = source.read(source.artifact.entry)
        check_onnx(content, source.artifact.entry, compiled=True)
        if PROVIDER not in {device.ep_name for device in onnxruntime.get_ep_devices()}:
            path = onnxruntime_qnn.get_library_path()
            onnxruntime.register_execution_provider_library(PROVIDER, path)
        found = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
        if not found:
            raise RuntimeError("onnxruntime-qnn finds no NPU of Qualcomm's here")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors come as exceptions, the rest is noise
        backend = {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
        options.add_provider_for_devices(found[:1], backend)
        self._session = onnxruntime.InferenceSession(content, options)
        self._bind(self._session, source)

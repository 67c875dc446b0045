"""An example of a format from outside: PyTorch's own .pt2, with its exporter, engine and precision.

A package of one's own needs these three files and two entries in its pyproject.toml:

    [project.entry-points."fastseg.exporters"]
    pt2 = "fastseg_pt2.export:EXPORTER"
    [project.entry-points."fastseg.backends"]
    pt2 = "fastseg_pt2:ENGINE"

The engine's record stands alone here: devices have this package, the runtime and no exporter, and
whoever lists engines looks at it without loading torch.
"""

from fastseg_runtime.engines.engine import Engine, Precision

BF16 = Precision(
    "autocast",
    bytes_per_weight=2,
    rate="fp16_gflops",
    is_float=True,
    ranks=(20, 30, 40),
    selftest_agreement=0.9,
    gate_agreement=0.9,
)
ENGINE = Engine(
    "pt2",
    "fastseg_pt2.backend:Pt2Backend",
    "PyTorch's exported programs",
    formats=("pt2",),
    modules=("torch",),
    install="pip install fastseg-pt2",
    ranks=(45, 45),  # behind ONNX Runtime and LiteRT, before eager PyTorch
    wheels=("fastseg-pt2", "torch"),
    pins={"3.11": {"aarch64": {"fastseg-pt2": ("1.0", "0" * 64), "torch": ("2.9.1", "1" * 64)}}},
    precisions=(BF16,),
)

"""fastseg_runtime: run fastseg bundles on a device, with numpy alone."""

__version__ = "0.1.0"

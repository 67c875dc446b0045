"""Generated street scenes: a pinhole camera looks along a street of random plots and traffic."""

from fastseg.data.street.scene import draw_street

__all__ = ["draw_street"]

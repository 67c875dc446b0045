"""Generated street scenes: a pinhole camera looks along a street of random plots and traffic."""

"""Generated street scenes: a pinhole camera looks along a street of random plots and traffic.

`scene` puts together what the other files draw on a `canvas`; `generated.lanes` uses scene, canvas
and vehicles too.
"""

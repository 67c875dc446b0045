"""Generated street scenes: a pinhole camera looks along a street of random plots and traffic.

`scene` puts together what the other files draw on a `canvas`, of `shapes`; `generated.lanes` uses
scene, canvas, shapes and vehicles too.
"""

"""Pictures that are drawn, with class maps that are right by construction.

Each kind is one file with an `open_...` and a line in fastseg.data.loaders.LOADERS: `street/` is
"synthetic"; `lanes`, `organ` and `crops` follow their names. `procedural` makes a data set of a
function that draws, `noise` textures. Nobody but LOADERS needs to know what is in here; it imports
fastseg.data.dataset, CamVid's classes, and the runtime's records.
"""

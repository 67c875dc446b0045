"""What commands are told of a network that is not ours, in the same words everywhere."""

from typing import Annotated

import typer

from fastseg.outputs import Reading

NormalizationOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|TOML",
        help="What a network of your own takes: imagenet, unit (0 to 1), centred, or a file with "
        "mean, std and scale. [centred: (x - 128) / 64]",
    ),
]
ColorOption = Annotated[
    str | None, typer.Option(help="rgb or bgr: the order of its channels. [rgb]")
]
OutputNameOption = Annotated[
    str | None, typer.Option(help="Which of its outputs are the logits: out, 1, aux.0.")
]
FitOption = Annotated[
    str | None,
    typer.Option(
        help="stretch or letterbox: how pictures of another aspect come into its input. [what a "
        "checkpoint says, else stretch]"
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(help=f"With one logit: the second class above it. [{Reading.threshold}]"),
]

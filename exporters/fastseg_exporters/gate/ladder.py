"""From the precision asked for down to one that passes its gate.

Int8 that fails is tried again with the layers that do the damage in float, then the next
precision of the target's ladder. Every attempt goes into the manifest.
"""

import dataclasses
import shutil
from typing import Any

from fastseg_targets.target import Target

from fastseg_exporters.convert.child import Converted
from fastseg_exporters.convert.exporter import Conversion, ConversionError
from fastseg_exporters.gate.record import Passed
from fastseg_exporters.gate.verify import (
    failures,
    on_agreement_alone,
    selftest_failures,
)
from fastseg_exporters.gate.workshop import Workshop

MAX_FLOAT_SHARE = 0.5  # int8 with more than half of its layers in float is not worth the name


class GateError(RuntimeError):
    """No precision of a target passed, or the first did not and the user said --strict."""


def climb_down(target: Target, workshop: Workshop, strict: bool = False) -> Passed:
    """Convert and verify at each precision of a target's ladder until one passes.

    Args:
        target: what for.
        workshop: converts and verifies.
        strict: stop at the first failure instead.

    Raises:
        GateError: with the numbers of every attempt.
        ConversionError: the converter failed.
    """
    ladder = _Ladder(workshop)
    for precision in target.ladder:
        conversion = Conversion(workshop.recipe, target, precision)
        tried = ladder.attempt(conversion)
        if isinstance(tried, Converted) and tried.artifact.layers and not strict:
            try:
                tried = ladder.keep_worst_in_float(conversion, tried.artifact.layers) or tried
            except ConversionError as error:  # the converter can do int8, and may do the next
                workshop.tell(f"{target.name}: {error}")
        if isinstance(tried, Passed):
            return tried
        if strict:
            break
    lines = [f"  {a['precision']}: {'; '.join(a['failures'])}" for a in ladder.attempts]
    raise GateError("\n".join([f"{target.name} did not pass its gate:", *lines]))


class _Ladder:
    """What has been tried, and one more attempt."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self.attempts: list[dict[str, Any]] = []

    def attempt(self, conversion: Conversion) -> Passed | Converted:
        """Return it if it passes, else what was converted; record it either way."""
        workshop, target, precision = self._workshop, conversion.target, conversion.precision
        converted = workshop.convert(conversion)
        verification = workshop.verify(conversion, converted)
        reasons = failures(verification, target.gate, precision)
        reasons += selftest_failures(verification, precision)
        if verification.file:
            reasons = [f"{verification.file}: {reason}" for reason in reasons]
        self.attempts.append(
            {
                "precision": precision,
                "float_layers": list(conversion.keep_float),
                "failures": reasons,
                "verification": verification.to_table(),
            }
        )
        if reasons:
            workshop.tell(f"{target.name}: {precision} fails its gate: {'; '.join(reasons)}")
            shutil.rmtree(converted.folder, ignore_errors=True)
            return converted
        if on_agreement_alone(verification):
            workshop.tell(
                f"{target.name}: {precision} judged on agreement with the network alone, "
                f"{verification.agreement:.1%} of the pixels"
            )
        return Passed(conversion, converted, verification, tuple(self.attempts))

    def keep_worst_in_float(self, conversion: Conversion, layers: tuple[str, ...]) -> Passed | None:
        """Give the most harmful layers back to float, and no more of them than the gate asks for.

        One, two, four ... until the gate passes, then halving between the last two counts.
        """
        ranking = rank_layers(conversion, layers, self._workshop)
        self.attempts[-1]["layer_ranking"] = [[name, round(alike, 5)] for name, alike in ranking]
        names = tuple(name for name, _ in ranking)

        def passes(count: int) -> Passed | None:
            self._workshop.tell(
                f"{conversion.target.name}: int8 with {count} of {len(names)} layers in float"
            )
            try:
                tried = self.attempt(dataclasses.replace(conversion, keep_float=names[:count]))
            except ConversionError as error:  # costs this count, none that passed before
                self._workshop.tell(f"{conversion.target.name}: {error}")
                return None
            return tried if isinstance(tried, Passed) else None

        too_few, count, best = 0, 1, None
        while best is None and count <= len(names) * MAX_FLOAT_SHARE:
            best = passes(count)
            if best is None:
                too_few, count = count, 2 * count
        if best is None:
            return None
        while count - too_few > 1:
            middle = (too_few + count) // 2
            passed = passes(middle)
            if passed is None:
                too_few = middle
            else:
                count, best = middle, passed
        return dataclasses.replace(best, attempts=tuple(self.attempts))


def rank_layers(
    conversion: Conversion, layers: tuple[str, ...], workshop: Workshop
) -> list[tuple[str, float]]:
    """Return each layer with how alike to PyTorch int8 is when it alone stays in float.

    Best first: the layer whose rounding does most harm. All are converted in one child process
    where the disk takes them, with ranges from a few images, which are the same for all.
    """
    name = conversion.target.name
    workshop.tell(f"{name}: ranking {len(layers)} layers, each alone in float")
    ranking = []
    for done, converted in enumerate(workshop.convert_each(conversion, layers)):
        workshop.progress(f"{name}: ranking layers", done, len(layers))
        ranking.append((layers[done], workshop.likeness(conversion, converted)))
        shutil.rmtree(converted.folder, ignore_errors=True)
    return sorted(ranking, key=lambda entry: -entry[1])

"""Measure what Qualcomm's compiler and simulator make of artifacts; print a table in Markdown.

    fastseg-export NETWORK --target cpu-int8 --output logits --out int8.fastseg
    python tools/export_figures/measure_qualcomm_htp.py camvid:PATH int8.fastseg...

The referee "qualcomm-htp" (`make referees REFEREES=qualcomm-htp`) judges every artifact of the
bundles that it takes, with one image of the data's test split.
"""

import argparse
import tempfile
from pathlib import Path

from fastseg_exporters.gate.referees.referee import REFEREES
from fastseg_runtime.bundle.reader import open_bundle
from measure_rknn import simulate, spread

REFEREE = "qualcomm-htp"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a data set with a test split")
    parser.add_argument("bundles", nargs="+")
    given = parser.parse_args()
    images_HW3 = [image_HW3 for image_HW3, _ in spread(given.data, "test", 1)]
    print(
        "| file | output | compiled, MB | convolutions | as ONNX Runtime |\n|---|---|---|---|--:|"
    )
    for path in given.bundles:
        with open_bundle(path) as bundle:
            judged = (a for a in bundle.manifest.artifacts if REFEREES[REFEREE].judges(a))
            for artifact in judged:
                with tempfile.TemporaryDirectory() as name:
                    work = Path(name)
                    facts = simulate(REFEREE, bundle, artifact.target, images_HW3, work).facts
                sizes = ", ".join(f"{soc} {made['mb']}" for soc, made in facts["compiled"].items())
                widths = ", ".join(f"{n} {width}" for width, n in facts["convolutions"].items())
                output, share = (
                    bundle.manifest.output.kind,
                    f"{100 * facts['as_onnxruntime']:.2f} %",
                )
                print(
                    f"| {artifact.target} | {output} | {sizes} | {widths} | {share} |", flush=True
                )


if __name__ == "__main__":
    main()

"""Run frames through artifacts of a bundle, in the interpreter of one engine version.

    PYTHONPATH=runtime python run_frames.py BUNDLE FRAMES.npz TARGET... RESULT.npz

FRAMES.npz has uint8 frames (N, H, W, 3) as "frames". RESULT.npz gets for each target its ids
(N, H, W), and on stdout comes one JSON document: the engine's version and all errors.
"""

import json
import sys

import numpy as np
from fastseg_runtime import RealtimeSegmentation


def main(bundle, frames_file, *targets, result_file):
    """Run every frame through every target; an error costs its own frame alone."""
    frames_NHW3 = np.load(frames_file)["frames"]
    ids, errors, versions = {}, [], set()
    for target in targets:
        ids[target] = np.full(frames_NHW3.shape[:3], 255, np.uint8)
        with RealtimeSegmentation(bundle, target=target, threads=1) as seg:
            versions.add(seg.info.version.partition("-")[0])  # OpenVINO adds its build
            for index, frame_HW3 in enumerate(frames_NHW3):
                try:
                    ids[target][index] = seg.infer(frame_HW3)
                except Exception as error:
                    errors.append([target, index, str(error)[-200:]])
    np.savez(result_file, **ids)
    print(json.dumps({"versions": sorted(versions), "errors": errors}))


if __name__ == "__main__":
    main(*sys.argv[1:-1], result_file=sys.argv[-1])

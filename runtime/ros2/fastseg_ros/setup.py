"""What colcon installs: the node, its launch file and its parameters."""

from setuptools import setup

NAME = "fastseg_ros"

setup(
    name=NAME,
    version="0.1.0",
    description="Camera frames in, maps of class ids out: a lifecycle node around a fastseg bundle",
    license="MIT",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/segmenter.launch.py"]),
        (f"share/{NAME}/config", ["config/segmenter.yaml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    entry_points={"console_scripts": [f"segmenter = {NAME}.segmenter:main"]},
)

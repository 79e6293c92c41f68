"""Package metadata. It stands here, not in pyproject.toml's [project], because the setuptools that
comes with Ubuntu 22.04 and JetPack 6 silently builds an empty wheel from the latter."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """The version, read as text: importing the package would need its dependencies."""
    text = (ROOT / "glnet_rt" / "_version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('glnet_rt/_version.py holds no line __version__ = "..."')
    return match.group(1)


# Floors are low on purpose; the tests were run on them. Opset 20 needs onnxruntime 1.17, and before
# 0.15.4 typer breaks with newer releases of click.
RUNTIME = [
    "numpy>=1.24",
    "opencv-python-headless>=4.8",
    "numba>=0.59",
    "llvmlite>=0.42",  # the one that numba brings
    "onnxruntime>=1.17",
    "typer>=0.15.4",
    "rich>=13.8",
]
TRAIN = [
    "matplotlib>=3.7",
    "torch>=2.2",
    "safetensors>=0.4",
    "scikit-image>=0.22",
    "scipy>=1.10",
    "h5py>=3.8",
    "cdflib>=1.1",
    "pycocotools>=2.0.7",
    "tqdm>=4.60",
]
EXPORT = [*TRAIN, "onnx>=1.15", "onnxscript>=0.1", "onnxsim>=0.4"]
# It brings an ONNX Runtime of its own for GPUs, so it belongs in an environment of its own.
FP8 = ["nvidia-modelopt[onnx]>=0.27"]
DEV = [
    "mypy>=1.10",
    "pygltflib>=1.16",
    "pytest>=8",
    "pytest-cov>=5",
    "ruff>=0.6",
    "setuptools>=59.6",
    "wheel",
]
# The reference that our skinning is tested against. Its licence forbids commercial use, so nothing
# but tests and benchmarks may import it, and it is an extra of its own.
ORACLES = ["smplx>=0.1.28"]

# NVRTC must have the major version of cuda-bindings, and the driver must know that version: CUDA 13
# from driver 580 on, CUDA 12 on JetPack 6.
CUDA = ["cuda-bindings>=13", "nvidia-cuda-nvrtc>=13"]
CUDA12 = ["cuda-bindings>=12.6,<13", "nvidia-cuda-nvrtc-cu12>=12.6"]
PYCUDA = ["pycuda>=2024.1"]
# Plain TensorRT wants a GPU to build engines with, TensorRT for RTX does not: the tests build real
# engines with that version.
TENSORRT = ["tensorrt>=10.3"]
OPENVINO = ["openvino>=2025.0"]
RTX = ["tensorrt-rtx==1.7.1.116"]
# What the benchmarks are compared with, where it is there; OSMesa wants a newer PyOpenGL than
# pyrender asks for (docs/performance.md).
PEERS = ["pyrender", "trimesh"]

setup(
    name="glnet-rt",
    version=read_version(),
    description="Real-time human mesh recovery: from a photo or a video to posed 3-D bodies.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["glnet_rt", "glnet_rt.*"]),
    package_data={
        "glnet_rt": ["assets/*", "py.typed"],
        "glnet_rt.backends.cuda": ["kernels/*"],
    },
    install_requires=RUNTIME,
    extras_require={
        "cuda": CUDA,
        "cuda12": CUDA12,
        "pycuda": PYCUDA,
        "openvino": OPENVINO,
        "tensorrt": TENSORRT,
        "rtx": RTX,
        "train": TRAIN,
        "export": EXPORT,
        "fp8": FP8,
        "dev": DEV,
        "oracles": ORACLES,
        "peers": PEERS,
    },
    entry_points={"console_scripts": ["glnet-rt = glnet_rt.cli.main:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)

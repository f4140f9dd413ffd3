"""Packaging; tool settings are in pyproject.toml."""

import runpy

import setuptools

# What `iwae_zoo_serving` needs besides; `iwae-zoo serve` and `iwae-zoo query` name this extra where it is missing.
SERVING = [
    "aiohttp>=3.13,<4",
    "grpcio>=1.76,<2",
    "urllib3>=2.2,<3",
]

setuptools.setup(
    name="iwae_zoo",
    version=runpy.run_path("iwae_zoo/_version.py")["__version__"],
    description="A model zoo of importance-weighted autoencoders for Keras 3 and TensorFlow",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["iwae_zoo", "iwae_zoo.*", "iwae_zoo_serving", "iwae_zoo_serving.*"]),
    package_data={"iwae_zoo.presets": ["weights/*.json", "weights/*.weights.h5"]},
    py_modules=["iwae_zoo_console"],
    entry_points={"console_scripts": ["iwae-zoo=iwae_zoo_console:main"]},
    # BUILD.md gives the reason for each dependency and for each pin.
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<4",
        "tensorboard>=2.20",
        "tensorflow-probability>=0.25,<0.26",
        "tf-keras>=2.21,<2.22",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources",
        "absl-py>=2.1",
        "tensorflow-serving-api>=2.21,<2.22",
        "matplotlib>=3.9",
        "numpy>=2.0",
        "psutil>=5.9",
        "pyarrow>=17",
        "scikit-learn>=1.6",
        "scipy>=1.14",
        "tqdm>=4.66",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "peers": ["pythae==0.1.2", "torch==2.13.0"],
        "serving": SERVING,
        "test": [
            *SERVING,
            "arviz>=0.23,<0.24",
            "mypy>=1.15",
            "pytest>=8.3",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "PyYAML>=6",
            "ruff>=0.12",
        ],
    },
)

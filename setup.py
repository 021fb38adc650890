"""The package and its commands.

The stages live in top-level folders of the repository and import as parts of mvl_auto: names as
common as `inference` must not land bare in anyone's site-packages.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1] for line in (HERE / "mvl_auto/version.py").read_text().splitlines() if line.startswith("__")
)
STAGES = ["planners", "preprocessing", "inference", "evaluation"]
COMMANDS = [
    *("plan_and_preprocess", "pretrain", "train", "predict", "evaluate", "compare"),
    *("demo", "block", "explain", "doctor", "audit", "report", "ablate"),
]
DOCS = "mvl_auto.docs"  # the pages of docs/, for messages that point to them
FOLDERS = {"mvl_auto": "mvl_auto"} | {f"mvl_auto.{stage}": stage for stage in STAGES}
PACKAGES = [
    *FOLDERS,
    *(f"{name}.{inner}" for name, folder in FOLDERS.items() for inner in find_packages(str(HERE / folder))),
]
LORA = ["peft>=0.15"]
DEMO = ["matplotlib>=3.10.7", "nilearn>=0.12"]  # its data and its picture; also the pictures of explain and compare
DASK = ["distributed>=2024.5"]
SLURM = ["submitit>=1.5.2"]
TENSORBOARD = ["tensorboard>=2.16"]
DICOM = ["pylibjpeg>=2.0", "pylibjpeg-openjpeg>=2.3", "python-gdcm>=3.0.24"]  # decoders of compressed DICOM
REPOSITORY = ""  # address of the public repository, once there is one: links of the README then lead there


def index_readme(text: str, repository: str) -> str:
    """A README for the package index, where links into the repository lead nowhere: absolute ones, or none.

    A picture is fetched as the file itself, a page as the repository shows it.
    """
    if repository:
        text = re.sub(r"(!\[[^]]*\]\()(?!https?://)([^)]+)\)", rf"\1{repository}/raw/main/\2)", text)
        return re.sub(r"\]\((?!https?://|#)([^)]+)\)", rf"]({repository}/blob/main/\1)", text)
    text = re.sub(r"!\[[^]]*\]\((?!https?://)[^)]+\)\n*", "", text)
    return re.sub(r"\[([^]]*)\]\((?!https?://|#)[^)]+\)", r"\1", text)


def project_urls(repository: str) -> dict[str, str]:
    """What the package index links to; nothing without a repository."""
    pages = {
        "Source": "",
        "Documentation": "/tree/main/docs",
        "Changelog": "/blob/main/CHANGELOG.md",
        "Issues": "/issues",
    }
    return {name: f"{repository}{page}" for name, page in pages.items()} if repository else {}


setup(
    name="mvl-auto",
    version=VERSION,
    description="Self-configuring 3D medical image segmentation around a frozen LLM block in a Vision Transformer",
    long_description=index_readme((HERE / "README.md").read_text(encoding="utf-8"), REPOSITORY),
    long_description_content_type="text/markdown",
    author="The MVL-Auto contributors",
    url=REPOSITORY or None,
    project_urls=project_urls(REPOSITORY),
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["medical imaging", "segmentation", "vision transformer", "large language model"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*PACKAGES, DOCS],
    package_dir=FOLDERS | {DOCS: "docs"},
    package_data={"mvl_auto": ["py.typed"], "mvl_auto.report": ["assets/*"], DOCS: ["*.md"]},
    entry_points={"console_scripts": [f"mvl_{name} = mvl_auto.cli.{name}:main" for name in COMMANDS]},
    install_requires=[
        "batchgenerators>=0.25.4",
        "blosc2>=4.5",
        "filelock>=3.12",
        "gguf>=0.10",
        "huggingface_hub>=1.3",
        "jinja2>=3.1",
        "joblib>=1.3",
        "nibabel>=5.4",
        "numpy>=1.26",
        "pandas>=2.2.1",
        "pillow>=10",
        "pydantic>=2.11",
        "pydicom>=3.0.1",
        "safetensors>=0.4.3",
        "scikit-image>=0.22",
        "scipy>=1.11",
        "SimpleITK>=2.3",
        "threadpoolctl>=3.2",
        "tifffile>=2025.10.16",
        "torch>=2.6",
        "tqdm>=4.66",
        "transformers>=5.0",
    ],
    extras_require={
        "test": [
            *(
                *LORA,
                *DASK,
                *DEMO,
                *DICOM,
                *SLURM,
                *TENSORBOARD,
                "hypothesis>=6.100",
                "mypy>=1.10",
                "packaging>=23",
                "pytest>=8",
                "pytest-cov>=5",
                "pytest-xdist>=3.8",
                "ruff>=0.15",
            ),
            *("ipykernel>=6.29", "nbclient>=0.10"),  # the notebook of docs/ runs
            "selenium>=4.20",  # drives Chromium, where it is installed, through the report
            "surface-distance-based-measures>=0.1",  # the reference for metrics weighted by area
        ],
        "demo": DEMO,
        "lora": LORA,
        # the peers of benchmarks/
        "bench": ["monai>=1.4", "nnunetv2>=2.5", "psutil>=5.9", "surface-distance-based-measures>=0.1"],
        "dask": DASK,
        "dicom": DICOM,
        "slurm": SLURM,
        "tensorboard": TENSORBOARD,
    },
)

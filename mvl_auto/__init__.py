"""MVL-Auto: self-configuring medical image segmentation around a frozen LLM block.

    import mvl_auto

    plan = mvl_auto.plan_and_preprocess("raw/Task04_Hippocampus", memory="8GB")
    mvl_auto.train(4, "fold0", seconds="10m")
    mvl_auto.predict("imgs", "preds")
    mvl_auto.evaluate("references", "preds")

Everything is loaded when it is first used: importing mvl_auto imports neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mvl_auto.version import __version__

if TYPE_CHECKING:
    from mvl_auto.ablation.options import AblationOptions
    from mvl_auto.errors import MvlError
    from mvl_auto.inference.predictor import Predictor
    from mvl_auto.plans import Plan
    from mvl_auto.public import (
        ablate,
        audit,
        compare,
        doctor,
        evaluate,
        explain,
        plan_and_preprocess,
        predict,
        pretrain,
        train,
    )

HOMES = {  # public name -> the module that has it
    "AblationOptions": "mvl_auto.ablation.options",
    "MvlError": "mvl_auto.errors",
    "Plan": "mvl_auto.plans",
    "Predictor": "mvl_auto.inference.predictor",
    "ablate": "mvl_auto.public",
    "audit": "mvl_auto.public",
    "compare": "mvl_auto.public",
    "doctor": "mvl_auto.public",
    "evaluate": "mvl_auto.public",
    "explain": "mvl_auto.public",
    "plan_and_preprocess": "mvl_auto.public",
    "predict": "mvl_auto.public",
    "pretrain": "mvl_auto.public",
    "train": "mvl_auto.public",
}

__all__ = [
    "AblationOptions",
    "MvlError",
    "Plan",
    "Predictor",
    "__version__",
    "ablate",
    "audit",
    "compare",
    "doctor",
    "evaluate",
    "explain",
    "plan_and_preprocess",
    "predict",
    "pretrain",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(importlib.import_module(HOMES[name]), name)
    raise AttributeError(f"module 'mvl_auto' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

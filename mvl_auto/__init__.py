"""MVL-Auto: self-configuring medical image segmentation around a frozen LLM block.

    import mvl_auto

    plan = mvl_auto.plan_and_preprocess("raw/Task04_Hippocampus")
    mvl_auto.train(4, folds=["0"])
    mvl_auto.predict("imgs", "preds")
    mvl_auto.evaluate("references", "preds")

The four are loaded when they are first used: importing mvl_auto imports neither torch nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mvl_auto.version import __version__

if TYPE_CHECKING:
    from mvl_auto.api import evaluate, plan_and_preprocess, predict, train

__all__ = ["__version__", "evaluate", "plan_and_preprocess", "predict", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mvl_auto import api

        return getattr(api, name)
    raise AttributeError(f"module 'mvl_auto' has no attribute '{name}'")

"""What the user chooses about an ablation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvl_auto.ablation.record import Amount, Length
from mvl_auto.arguments import list_of_folds, list_of_words


@dataclass(frozen=True)
class AblationOptions:
    """arms: None, the usual eight. folds: whose validation cases are scored. seeds: how many, from `first_seed` on.

    amounts: of the training cases of each fold. length: of each run; None: the plan's steps. learning_rate: of all
    arms; None: that of mvl_train. mapper_rate: factor on it for mappers and gate. learning_rates: to search in for each
    arm, in short runs of `search_steps`, and mapper_rates, factors; none: no search. keep: leave checkpoints and
    predictions of finished runs. jobs: processes, of one thread each where there are several. scheduler: the address of
    a Dask cluster instead.
    """

    arms: tuple[str, ...] | None = None
    folds: tuple[str, ...] = ("0",)
    seeds: int = 1
    first_seed: int = 0
    amounts: tuple[Amount, ...] = (Amount(share=1.0),)
    length: Length | None = None
    learning_rate: float | None = None
    mapper_rate: float = 1.0
    learning_rates: tuple[float, ...] = ()
    mapper_rates: tuple[float, ...] = (1.0,)
    search_steps: int = 100
    configuration: str | None = None
    device: str = "auto"
    keep: bool = False
    jobs: int = 1
    scheduler: str | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        """A single arm or fold is a tuple of one; a fold may be a number."""
        if self.arms is not None:
            object.__setattr__(self, "arms", tuple(list_of_words(self.arms)))
        object.__setattr__(self, "folds", tuple(map(str, list_of_folds(self.folds))))

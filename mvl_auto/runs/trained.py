"""A trained network, ready to predict: built from its plan, its block and its averaged weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.errors import MvlError
from mvl_auto.plans import Configuration, LabelScheme, Plan, read_document

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mvl_auto.llm import FrozenBlock
    from mvl_auto.network.model import MedVisionLlama
from mvl_auto.runs.checkpoint import AVERAGED, CHECKPOINT, PLAN, State, check_tensors, read_state, read_tensors


@dataclass(frozen=True)
class Trained:
    """A network that can predict, with what it needs to know."""

    network: MedVisionLlama
    plan: Plan
    configuration: Configuration
    state: State
    folder: Path

    @property
    def labels(self) -> LabelScheme:
        return self.plan.labels


def load_trained(fold_folder: Path, blocks_folder: Path) -> Trained:
    """The averaged network of a fold, in eval mode, on the CPU.

    Raises MvlError when the checkpoint is damaged, belongs to another plan, or its block is another one.
    """
    state = read_state(fold_folder)
    plan = read_document(fold_folder.parent / PLAN, Plan, remedy="Train this run anew with mvl_train.")
    if plan.hash != state.plan_hash:
        raise MvlError(
            f"was trained with another plan than {fold_folder.parent / PLAN}",
            file=fold_folder / CHECKPOINT,
            remedy="Restore the plan of this run, or train it anew.",
        )
    configuration = plan.configuration(state.configuration)
    network = network_of(plan, configuration, load_block_of(configuration, state, blocks_folder))
    weights = read_tensors(fold_folder / CHECKPOINT, (AVERAGED,))[AVERAGED]
    load_weights(network, weights, fold_folder / CHECKPOINT)
    if not configuration.network.llm.predicts:
        network.llm = None  # it was there in training only
    return Trained(network.eval(), plan, configuration, state, fold_folder)


def network_of(plan: Plan, configuration: Configuration, block: FrozenBlock | None, seed: int = 0) -> MedVisionLlama:
    """The network of a configuration, freshly initialized."""
    from mvl_auto.network.model import build_network

    channels = plan.input_channels(configuration)
    return build_network(configuration.network, channels, plan.labels.num_outputs, block, seed)


def load_block_of(configuration: Configuration, state: State | None, blocks_folder: Path) -> FrozenBlock | None:
    """The frozen block of a configuration; where a state is given, the very block of that state."""
    settings = configuration.network.llm
    if not settings.present:
        return None
    from mvl_auto.llm import LayerRange, load_block, load_same_block, planned_layers

    if state is None or state.block is None:
        return load_block(settings.source, planned_layers(settings), blocks_folder, settings.hidden_size)
    block = state.block
    layers = LayerRange(block.layer, block.layers)
    return load_same_block(block.source, layers, blocks_folder, block.sha256, block.geometry_sha256, block.name)


def load_weights(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Copy weights into the network. Raises MvlError when a name, a shape or a type does not fit."""
    from mvl_auto.network.optimizer import trainable

    own = trainable(network)
    check_tensors(weights, own, path)
    for name, parameter in own.items():
        parameter.data.copy_(weights[name])

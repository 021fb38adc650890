"""A plan as a table: a row per figure, a column per configuration, the recommended one with a star."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvl_auto.text import shape_text

if TYPE_CHECKING:
    from mvl_auto.plans.plan import Configuration, Plan

FACTS = ["voxel, mm", "image, voxels", "patch, voxels", "token, voxels", "batch", "depth x width", "steps"]


def plan_table(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """Header and rows. The first cell names the axes of all shapes."""
    configurations = list(plan.configurations.values())
    dimensions = {each.dimensions for each in configurations}
    axes = "Y X" if dimensions == {2} else "Z Y X" if dimensions == {3} else "Z Y X, 2d: Y X"
    names = [each.name + " *" * (each.name == plan.recommended) for each in configurations]
    rows = zip(FACTS, *map(_facts, configurations), strict=True)
    return [f"axes: {axes}", *names], [list(row) for row in rows]


def _facts(configuration: Configuration) -> list[str]:
    """A column of the table: the values of FACTS."""
    network, axes = configuration.network, configuration.dimensions
    return [
        " ".join(f"{mm:.3g}" for mm in configuration.spacing[-axes:]),
        shape_text(map(round, configuration.median_image_size_in_voxels[-axes:]), "x"),
        shape_text(configuration.patch_size, "x"),
        shape_text(network.token_size, "x"),
        str(configuration.batch_size),
        f"{network.depth} x {network.width}",
        str(configuration.steps),
    ]

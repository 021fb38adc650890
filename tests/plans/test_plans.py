"""Documents: what one stage writes the next one reads, or says in one line why not."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fingerprints import case_of
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import tiny
from pydantic import ValidationError

from mvl_auto import plans
from mvl_auto.errors import MvlError
from mvl_auto.files import sha256_of_json
from mvl_auto.plans import (
    Channel,
    ChannelStatistics,
    Configuration,
    LabelScheme,
    Plan,
    Splits,
    Trail,
    read_document,
    write_document,
)
from mvl_auto.printable import printable

SPLITS = Splits(fingerprint_hash="abc", seed=3, folds=(("a", "b"), ("c",)))


def configuration(**changes: Any) -> Configuration:
    settings: dict[str, Any] = {
        "name": "3d_fullres",
        "spacing": (2.5, 1.0, 1.0),
        "median_image_size_in_voxels": (20.0, 40.0, 40.0),
        "patch_size": (16, 32, 32),
        "batch_size": 2,
        "normalization_schemes": ("z_score",),
        "use_mask_for_norm": (False,),
        "resample_separate_z": False,
        "iterations": 100,
        "mirror_axes": (0, 1, 2),
        "network": tiny(),
    }
    return Configuration(**(settings | changes))


def plan(**changes: Any) -> Plan:
    one = dict.fromkeys(ChannelStatistics.model_fields, 1.0)
    content: dict[str, Any] = {
        "dataset": "Dataset007_Tiny",
        "fingerprint_hash": "abc",
        "channels": (Channel(name="MRI"),),
        "labels": LabelScheme(class_values=(0, 255), class_names=("background", "a")),
        "file_ending": ".nii.gz",
        "transpose_forward": (0, 1, 2),
        "foreground_intensity_properties_per_channel": (ChannelStatistics(**one),),
        "memory_budget": 1 << 30,
        "configurations": {"3d_fullres": configuration()},
        "recommended": "3d_fullres",
    }
    return Plan(**(content | changes))


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("document", [SPLITS, plan()], ids=["splits", "plan"])
def test_a_document_is_read_as_it_was_written(tmp_path: Path, document: Any) -> None:
    write_document(tmp_path / "document.json", document)
    again = read_document(tmp_path / "document.json", type(document))
    assert again == document
    assert again.hash == document.hash
    content = json.loads((tmp_path / "document.json").read_text())
    assert content["schema_version"] == plans.SCHEMA_VERSION
    assert content["mvl_auto_version"]


def test_the_hash_is_of_the_meaning(tmp_path: Path) -> None:
    write_document(tmp_path / "splits.json", SPLITS)
    content = json.loads((tmp_path / "splits.json").read_text())
    (tmp_path / "splits.json").write_text(json.dumps(dict(reversed(content.items())), indent=7))
    assert read_document(tmp_path / "splits.json", Splits).hash == SPLITS.hash
    assert SPLITS.model_copy(update={"mvl_auto_version": "99.0"}).hash == SPLITS.hash
    assert SPLITS.model_copy(update={"seed": 4}).hash != SPLITS.hash
    assert SPLITS.model_copy(update={"folds": (("b", "a"), ("c",))}).hash != SPLITS.hash


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    write_document(tmp_path / "splits.json", SPLITS)
    rewrite(tmp_path / "splits.json", schema_version=plans.SCHEMA_VERSION + 1, new_field=1)
    with pytest.raises(MvlError) as caught:
        read_document(tmp_path / "splits.json", Splits)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/splits.json: has schema version {plans.SCHEMA_VERSION + 1}")
    assert "Update" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": "three"}, "is damaged at 'seed'"),
        ({"folds": [["a"], 4]}, "is damaged at 'folds.1'"),
        ({"colour": "red"}, "is damaged at 'colour'"),
        ({"schema_version": None}, "has no schema_version"),
        ({"schema_version": 0}, "has no schema_version"),
    ],
)
def test_a_damaged_document_is_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write_document(tmp_path / "splits.json", SPLITS)
    rewrite(tmp_path / "splits.json", **changes)
    with pytest.raises(MvlError) as caught:
        read_document(tmp_path / "splits.json", Splits, remedy="Plan again.")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/splits.json: {words}")
    assert message.endswith("Plan again.")
    assert "\n" not in message


def test_what_is_no_document_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(MvlError, match="has no schema_version"):
        read_document(tmp_path / "list.json", Splits)
    with pytest.raises(MvlError, match=r"none\.json: is missing\. Plan first\."):
        read_document(tmp_path / "none.json", Splits, remedy="Plan first.")


def test_documents_do_not_change_and_hold_no_nan() -> None:
    with pytest.raises(ValidationError):
        SPLITS.seed = 4  # type: ignore[misc]
    with pytest.raises(ValidationError):
        configuration(spacing=(float("nan"), 1.0, 1.0))


def test_the_cache_depends_on_the_preprocessing_alone() -> None:
    before = plan().preprocessing_hash("3d_fullres")
    trained_otherwise = plan(configurations={"3d_fullres": configuration(batch_size=4, patch_size=(8, 8, 8))})
    assert trained_otherwise.preprocessing_hash("3d_fullres") == before
    for other in (
        plan(configurations={"3d_fullres": configuration(spacing=(2.0, 1.0, 1.0))}),
        plan(configurations={"3d_fullres": configuration(resample_separate_z=True)}),
        plan(transpose_forward=(1, 0, 2)),
        plan(labels=LabelScheme(class_values=(0, 254), class_names=("background", "a"))),
    ):
        assert other.preprocessing_hash("3d_fullres") != before


@pytest.mark.parametrize(("scheme", "matter"), [("ct", True), ("z_score", False), ("none", False)])
def test_the_statistics_of_the_dataset_matter_to_the_channels_that_they_normalise(scheme: Any, matter: bool) -> None:
    numbers = {"mean": 1.0, "median": 1.0, "std": 1.0, "min": 0.0, "max": 9.0, "percentile_00_5": 0.1}
    hashes = {
        plan(
            configurations={"3d_fullres": configuration(normalization_schemes=(scheme,))},
            foreground_intensity_properties_per_channel=(ChannelStatistics(**numbers, percentile_99_5=high),),
        ).preprocessing_hash("3d_fullres")
        for high in (8.0, 8.5)
    }
    assert (len(hashes) == 2) == matter


def test_a_plan_without_what_came_later_has_the_hash_of_before(tmp_path: Path) -> None:
    write_document(tmp_path / "plans.json", plan())
    content = json.loads((tmp_path / "plans.json").read_text(encoding="utf-8"))
    assert content.pop("time_budget") is None
    assert content["configurations"]["3d_fullres"].pop("batch_dice") is False
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert read_document(tmp_path / "old.json", Plan) == plan()
    del content["mvl_auto_version"]
    del content["configurations"]["3d_fullres"]["reasons"]
    assert plan().hash == sha256_of_json(content)
    over_batch = configuration(batch_dice=True)
    assert plan(configurations={"3d_fullres": over_batch}).hash != plan().hash
    assert plan(time_budget=60.0).hash != plan().hash


def test_configurations_are_found_by_name_or_as_the_recommended_one() -> None:
    assert plan().configuration().name == "3d_fullres"
    assert plan().configuration("3d_fullres").network.token_size == (8, 8, 8)
    with pytest.raises(MvlError, match=r"Dataset007_Tiny has no configuration '2d' \(there are: 3d_fullres\)"):
        plan().configuration("2d")


@pytest.mark.parametrize(
    "wrong",
    [
        {"class_names": ("background",)},
        {"class_values": (0, 0)},
        {"regions": ((1,),), "region_names": ("a", "b"), "regions_class_order": (1,)},
    ],
)
def test_label_schemes_that_contradict_themselves_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LabelScheme(**({"class_values": (0, 1), "class_names": ("background", "a")} | wrong))


def test_outputs_and_what_is_scored() -> None:
    plain = LabelScheme(class_values=(0, 5, 9), class_names=("background", "a", "b"))
    assert (plain.num_outputs, plain.foreground_names, plain.foreground_classes) == (3, ("a", "b"), ((1,), (2,)))
    regions = LabelScheme(
        class_values=(0, 1, 2),
        class_names=("background", "rim", "core"),
        region_names=("whole", "core"),
        regions=((1, 2), (2,)),
        regions_class_order=(1, 2),
    )
    assert (regions.num_outputs, regions.foreground_names) == (2, ("whole", "core"))
    assert regions.foreground_classes == ((1, 2), (2,))


# ------------------------------------------------------------------ files that a stranger wrote

ABSURD = [0, -1, 10**9, 10**18, 10**400, 1.5, float("inf"), "x", None, [], {}, True]


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place in a JSON value, and what is there."""
    yield path, value
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_of(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


PLAN_JSON = json.loads(plan().model_dump_json())
NUMBERS = [
    path
    for path, value in paths_of(PLAN_JSON)
    if isinstance(value, int | float) and not isinstance(value, bool) and "reasons" not in path
]


def refusal(path: Path) -> str | None:
    """The one line with which a plan is refused; None where it is read."""
    try:
        read_document(path, Plan)
    except MvlError as error:
        line = str(error)
    else:
        return None
    assert printable(line) == line
    assert len(line) < 1000
    return line


@pytest.mark.parametrize("path", NUMBERS, ids=str)
def test_every_number_of_a_plan_has_a_range(tmp_path: Path, path: tuple[Any, ...]) -> None:
    """Of label values and intensities the range is that of the files' own types."""
    for wrong in ABSURD[:5]:
        (tmp_path / "plans.json").write_text(json.dumps(replaced(PLAN_JSON, path, wrong)))
        if refusal(tmp_path / "plans.json") is None:
            assert wrong != 10**400, "no number of a plan is without an end"
            intensity = path[0] == "foreground_intensity_properties_per_channel"
            free = path[-2:-1] == ("class_values",) or path[-1] in ("memory_budget", "iterations", "time_budget")
            assert intensity or free or wrong in (0, -1), f"{wrong} at {path}"


@settings(max_examples=300)
@given(st.data())
def test_a_plan_with_any_value_in_any_place_is_read_or_refused_in_one_line(tmp_path_factory: Any, data: Any) -> None:
    places = [path for path, _ in paths_of(PLAN_JSON)]
    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    )
    new = data.draw(st.sampled_from(ABSURD[:6] + ABSURD[7:]) | json_values)
    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    file.write_text(json.dumps(replaced(PLAN_JSON, data.draw(st.sampled_from(places)), new)))
    if refusal(file) is None:
        found = read_document(file, Plan)
        assert found.hash
        write_document(file, found)
        assert read_document(file, Plan) == found


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a\0b", "", "\x1b[2J"])
def test_a_dataset_of_a_plan_is_a_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "plans.json").write_text(json.dumps(PLAN_JSON | {"dataset": name}))
    with pytest.raises(MvlError, match=r"is damaged at 'dataset': this cannot be a file name"):
        read_document(tmp_path / "plans.json", Plan)


@pytest.mark.parametrize("ending", ["", "nii.gz", "/../x.nii", ".nii.gz/..", ".\0", "." + "a" * 99])
def test_a_file_ending_is_an_ending(tmp_path: Path, ending: str) -> None:
    (tmp_path / "plans.json").write_text(json.dumps(PLAN_JSON | {"file_ending": ending}))
    with pytest.raises(MvlError, match=r"is damaged at 'file_ending'"):
        read_document(tmp_path / "plans.json", Plan)


@pytest.mark.parametrize("version", [2, 10**30, True, "1", None, -1, 0, 1.5])
def test_only_the_known_schemas_are_read(tmp_path: Path, version: Any) -> None:
    (tmp_path / "plans.json").write_text(json.dumps(PLAN_JSON | {"schema_version": version}))
    with pytest.raises(MvlError, match=r"schema.version"):
        read_document(tmp_path / "plans.json", Plan)


def test_keys_on_disk_are_those_of_before() -> None:
    assert PLAN_JSON["configurations"]["3d_fullres"]["iterations"] == 100
    assert configuration(iterations=7).steps == 7
    trail = Trail(
        shape=(4, 5, 6),
        transpose_forward=(2, 0, 1),
        crop=((0, 6), (1, 4), (0, 5)),
        spacing=(1.0, 1.0, 1.0),
        resampled_shape=(6, 3, 5),
        resampled_spacing=(1.0, 1.0, 1.0),
        separate_axis=None,
    )
    assert {"size", "resampled_size"} <= json.loads(trail.model_dump_json()).keys()
    assert {"size", "size_after_crop"} <= case_of("a", (1, 2, 3), (1, 1, 1)).model_dump().keys()
    crops = [((0, 7), (1, 4), (0, 5)), ((3, 3), (1, 4), (0, 5))]
    for wrong in (*({"crop": crop} for crop in crops), {"transpose_forward": (0, 0, 1)}):
        with pytest.raises(ValidationError):
            Trail(**(trail.model_dump() | wrong))


@pytest.mark.parametrize(("width", "rate"), [(48, 3e-3), (192, 3e-3), (384, 1.5e-3), (768, 7.5e-4)])
def test_the_default_rate_falls_inversely_beyond_a_width_of_192(width, rate):
    assert tiny(width=width, heads=3).peak_learning_rate == pytest.approx(rate)

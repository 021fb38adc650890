"""One case: which labels are scored, what each metric sees, and which metrics there are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mvl_auto.errors import MvlError
from mvl_auto.evaluation import Scoring, score_case
from mvl_auto.evaluation.boundary import boundary_iou, count_boundaries, default_width_mm
from mvl_auto.evaluation.case import make_scoring
from mvl_auto.evaluation.lesions import count_lesions, lesion_f1
from mvl_auto.evaluation.metrics import DEFAULT_METRICS, METRICS, choose_metrics
from mvl_auto.evaluation.surfaces import assd_mm, hd95_mm, nsd, surface_distances, voxel_surface_distances
from mvl_auto.plans import IGNORE, LabelScheme

ORGANS = LabelScheme(class_values=(0, 5, 255), class_names=("background", "liver", "spleen"))
TUMOUR = LabelScheme(
    class_values=(0, 1, 2),
    class_names=("background", "edema", "core"),
    region_names=("whole", "inner"),
    regions=((1, 2), (2,)),
    regions_class_order=(1, 2),
)
ALL = Scoring(choose_metrics("all"))
SPACING = (3.0, 0.7, 1.1)


@st.composite
def two_maps(draw):
    shape = draw(array_shapes(min_dims=3, max_dims=3, max_side=7))
    values = arrays(np.int8, shape, elements=st.sampled_from([0, 0, 1, 2]))
    return draw(values), draw(values)


def test_every_foreground_class_of_a_case_is_scored():
    reference, predicted = np.array([[[1, 1, 2, 0]]]), np.array([[[1, 0, 2, 2]]])
    liver, spleen = score_case(reference, predicted, ORGANS)
    assert (liver.label, liver.reference_voxels, liver.prediction_voxels) == ("liver", 2, 1)
    assert (spleen.label, spleen.reference_voxels, spleen.prediction_voxels) == ("spleen", 1, 2)
    assert list(liver.metrics) == ["dice", "jaccard", "precision", "recall", "accuracy"]
    assert liver.metrics["recall"] == 1 / 2


def test_regions_are_scored_where_a_dataset_has_them():
    reference, predicted = np.array([[[1, 2, 2, 0]]]), np.array([[[2, 2, 1, 0]]])
    whole, inner = score_case(reference, predicted, TUMOUR, ALL, SPACING)
    assert (whole.label, whole.metrics["dice"], whole.metrics["hd_mm"]) == ("whole", 1, 0)
    assert (inner.label, inner.metrics["dice"]) == ("inner", pytest.approx(1 / 2))
    assert inner.metrics["hd_mm"] > 0


@given(two_maps())
def test_what_is_cut_out_for_a_label_scores_as_the_whole_image(maps):
    reference, predicted = maps
    scores = score_case(reference, predicted, ORGANS, ALL, SPACING)
    for number, score in enumerate(scores, start=1):
        masks = reference == number, predicted == number
        distances = surface_distances(*masks, SPACING)
        assert score.metrics["hd95_mm"] == pytest.approx(hd95_mm(distances), nan_ok=True)
        assert score.metrics["assd_mm"] == pytest.approx(assd_mm(distances), nan_ok=True)
        assert score.metrics["nsd"] == pytest.approx(nsd(distances), nan_ok=True)
        by_voxels = assd_mm(voxel_surface_distances(*masks, SPACING))
        assert score.metrics["assd_voxel_mm"] == pytest.approx(by_voxels, nan_ok=True)
        assert score.metrics["lesion_f1"] == pytest.approx(lesion_f1(count_lesions(*masks)), nan_ok=True)
        real = [axis for axis, size in enumerate(reference.shape) if size > 1] or [0]
        shape, spacing = ([some[axis] for axis in real] for some in (reference.shape, SPACING))
        flat = tuple(axis for axis in range(3) if axis not in real)
        width = default_width_mm(shape, spacing)
        expected = boundary_iou(count_boundaries(*(mask.squeeze(flat) for mask in masks), spacing, width))
        assert score.metrics["boundary_iou"] == pytest.approx(expected, nan_ok=True)


def test_voxels_that_nobody_labelled_count_for_no_metric():
    reference = np.zeros((4, 10, 10), np.int16)
    reference[1:3, 2:6, 2:6] = 1
    predicted = reference.copy()
    predicted[:, 9, 9] = 1  # far off, and in a piece of its own
    reference[:, 9, 9] = IGNORE
    score, _ = score_case(reference, predicted, ORGANS, ALL, SPACING)
    for name in ("dice", "nsd", "boundary_iou", "lesion_f1", "specificity"):
        assert score.metrics[name] == 1
    for name in ("hd_mm", "hd_voxel_mm", "volume_error_ml"):
        assert score.metrics[name] == 0


def test_each_label_has_its_tolerance():
    reference = np.zeros((6, 12, 12), np.int16)
    reference[1:5, 2:5, 2:5], reference[1:5, 7:10, 7:10] = 1, 2
    predicted = np.roll(reference, 1, axis=2)
    scoring = make_scoring("nsd", {"spleen": 2.0})
    liver, spleen = score_case(reference, predicted, ORGANS, scoring, (1.0, 1.0, 1.5))
    assert liver.metrics["nsd"] < 1, "1 mm, as where nothing is said"
    assert spleen.metrics["nsd"] == 1


def test_volumes_are_in_ml():
    reference = np.zeros((10, 10, 10), np.int16)
    predicted = reference.copy()
    reference[:2], predicted[:3] = 1, 1
    score, _ = score_case(reference, predicted, ORGANS, ALL, (2.0, 1.0, 5.0))
    assert score.metrics["volume_error_ml"] == pytest.approx(100 * 10 / 1000)
    assert score.metrics["absolute_volume_error_ml"] == pytest.approx(1)


def test_what_two_empty_masks_give():
    nothing = np.zeros((3, 4, 5), np.int16)
    score, _ = score_case(nothing, nothing, ORGANS, ALL, SPACING)
    defined = {name: value for name, value in score.metrics.items() if not math.isnan(value)}
    assert defined == {"specificity": 1, "accuracy": 1, "volume_error_ml": 0, "absolute_volume_error_ml": 0}


def test_metrics_by_name():
    assert choose_metrics("dice, HD95,nsd,dice") == ("dice", "hd95_mm", "nsd")
    assert choose_metrics(["iou", "sensitivity"]) == ("jaccard", "recall")
    assert choose_metrics("lesion") == ("lesion_recall", "lesion_precision", "lesion_f1")
    assert choose_metrics("default") == DEFAULT_METRICS
    assert set(choose_metrics("all")) == set(METRICS)


@pytest.mark.parametrize("wanted", ["dise", "", "dice,hd59"])
def test_an_unknown_metric_is_refused_with_those_there_are(wanted):
    with pytest.raises(MvlError, match="hd95_mm"):
        choose_metrics(wanted)


@pytest.mark.parametrize(
    "settings",
    [{"tolerance_mm": -1.0}, {"tolerance_mm": {"a": math.nan}}, {"boundary_mm": math.inf}, {"lesion_iou": 1.5}],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(MvlError):
        make_scoring("all", **settings)


def test_one_label_alone_is_scored_where_it_lies():
    reference, predicted = np.zeros((2, 9, 10, 8), np.int16)
    reference[4:8, 5:9, 3:7], predicted[5:8, 5:9, 3:7] = 1, 1
    one = LabelScheme(class_values=(0, 1), class_names=("background", "liver"))
    two = LabelScheme(class_values=(0, 1, 2), class_names=("background", "liver", "spleen"))
    (liver,) = score_case(reference, predicted, one, ALL, SPACING)
    assert liver.metrics["dice"] == pytest.approx(2 * 48 / (64 + 48))
    assert liver.metrics == score_case(reference, predicted, two, ALL, SPACING)[0].metrics

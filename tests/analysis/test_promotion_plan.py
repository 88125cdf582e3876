"""A plan is fixed by its hash, survives JSON, and refuses what cannot be judged."""

from __future__ import annotations

import dataclasses
import json

import pytest

from analysis.promotion_plan import PromotionPlan

FIELDS = {"shortlist": ("a", "b"), "reference": "softmax", "sizes": ("d32", "d48"), "seeds": (20_000, 20_001)}


def test_a_plan_survives_json():
    plan = PromotionPlan(**FIELDS, alpha=0.05, least_effect=0.02)
    again = PromotionPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.hash == plan.hash


def test_every_field_is_part_of_the_hash():
    plan = PromotionPlan(**FIELDS)
    changes = {
        "shortlist": ("a",),
        "reference": "other",
        "sizes": ("d32",),
        "seeds": (20_000, 20_002),
        "split": "other",
        "alpha": 0.02,
        "least_effect": 0.02,
        "max_parameter_ratio": 1.02,
    }
    only_one_value = {"correction", "alternative", "primary_statistic"}
    assert set(changes) | only_one_value == {field.name for field in dataclasses.fields(PromotionPlan)}
    hashes = {dataclasses.replace(plan, **{name: value}).hash for name, value in changes.items()}
    assert len(hashes) == len(changes)
    assert plan.hash not in hashes
    assert only_one_value <= set(plan.to_json())


def test_the_hash_does_not_depend_on_lists_or_whole_numbers():
    plan = PromotionPlan(**FIELDS, least_effect=1)
    same = PromotionPlan(
        **{name: list(v) if isinstance(v, tuple) else v for name, v in FIELDS.items()}, least_effect=1.0
    )
    assert plan.hash == same.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shortlist": ()}, "shortlist must hold at least one name"),
        ({"shortlist": ("a", "a")}, "shortlist holds a more than once"),
        ({"shortlist": ("softmax",)}, "cannot be on the shortlist"),
        ({"seeds": (1,)}, "at least 2 paired seeds"),
        ({"seeds": (1, 1)}, "seeds holds 1 more than once"),
        ({"seeds": (1, "2")}, "whole numbers"),
        ({"sizes": ()}, "sizes must hold"),
        ({"reference": ""}, "reference must be a name"),
        ({"alpha": 0.0}, "alpha must be a finite number strictly between 0.0 and 0.5; got 0.0"),
        ({"alpha": "0.01"}, "alpha must be"),
        ({"least_effect": -0.1}, "cannot be negative"),
        ({"least_effect": float("nan")}, "least_effect must be a finite number"),
        ({"max_parameter_ratio": 0.0}, "above 0.0"),
        ({"correction": "none"}, "correction must be 'holm'; got 'none'"),
        ({"alternative": "two-sided"}, "alternative must be 'one-sided'"),
        ({"primary_statistic": "slope"}, "primary_statistic must be"),
    ],
)
def test_a_bad_plan_is_refused_with_the_value_seen(change, message):
    with pytest.raises(ValueError, match=message):
        PromotionPlan(**{**FIELDS, **change})


def test_a_name_instead_of_a_list_is_a_type_error():
    with pytest.raises(TypeError, match="sizes must be a list or tuple; got 'd32'"):
        PromotionPlan(**{**FIELDS, "sizes": "d32"})


def test_unknown_and_missing_fields_are_named():
    value = PromotionPlan(**FIELDS).to_json()
    with pytest.raises(ValueError, match="unknown field 'least_efect'; did you mean 'least_effect'"):
        PromotionPlan.from_json({**value, "least_efect": 0.1})
    del value["seeds"]
    with pytest.raises(ValueError, match="missing seeds"):
        PromotionPlan.from_json(value)

"""What weights may be used for passes on, and only ever gets stricter."""

import dataclasses

import pytest
from fastseg_runtime.bundle.manifest import Manifest, ManifestError
from fastseg_runtime.bundle.usage import (
    COMMERCIAL,
    NOT_STATED,
    RESEARCH,
    USAGES,
    UsageRefusedError,
    describe_usage,
    require_usage,
    strictest,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.tiny_bundle import full_plan


@given(st.lists(st.sampled_from(USAGES), min_size=1))
def test_the_strictest_wins_in_any_order(usages: "list[str]") -> None:
    expected = next(u for u in (RESEARCH, NOT_STATED, COMMERCIAL) if u in usages)
    assert strictest(usages) == strictest(reversed(usages)) == expected


def test_from_nothing_known_nothing_is_stated() -> None:
    assert strictest([]) == NOT_STATED


@pytest.mark.parametrize("usage", [RESEARCH, NOT_STATED])
def test_a_requirement_refuses_what_is_not_known_to_allow_it(usage: str) -> None:
    with pytest.raises(UsageRefusedError, match=f"street: {describe_usage(usage)}, .*commercial"):
        require_usage(COMMERCIAL, usage, "street")


def test_without_a_requirement_or_where_it_is_met_nothing_is_refused() -> None:
    require_usage(COMMERCIAL, COMMERCIAL, "street")
    for usage in USAGES:
        require_usage(None, usage, "street")


@pytest.mark.parametrize("usage", USAGES)
def test_a_manifest_carries_it(usage: str) -> None:
    manifest = _with_usage(usage)
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_manifest_of_before_the_field_states_none_and_another_word_is_refused() -> None:
    old = _with_usage(RESEARCH).to_json().replace('"usage": "research"', '"unknown": ""')
    assert Manifest.from_json(old).model.usage == NOT_STATED
    with pytest.raises(ManifestError, match="usage: 'anything' makes no sense"):
        Manifest.from_json(_with_usage("anything").to_json())


def _with_usage(usage: str) -> Manifest:
    manifest = full_plan().manifest
    return dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, usage=usage))

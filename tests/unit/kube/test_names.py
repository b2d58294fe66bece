"""Names in configurations: what names a resource, and what was meant by what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool.kube.keys import RESOURCE_TYPES
from snaptool.kube.names import Misnamed, NameFault, misnamed, unmatched

PRESENT = ["secrets", "tokens.management.cattle.io", "widgets.example.com", "foos.?", "deployments.apps"]


@pytest.mark.parametrize("name", [known.group_resource for known in RESOURCE_TYPES])
def test_every_built_in_name_is_right(name: str) -> None:
    assert misnamed(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "*.*",
        "*.",
        "*.apps",
        "*.extensions",
        "*.widgets.example.com",
        "secrets.",
        "tokens.management.cattle.io",
        "jobs.batch.volcano.sh",
    ],
)
def test_wildcards_and_custom_plurals_are_right(name: str) -> None:
    assert misnamed(name) is None


@pytest.mark.parametrize(
    ("name", "fault", "meant"),
    [
        ("secret", NameFault.SINGULAR, "secrets"),
        ("endpoint", NameFault.SINGULAR, "endpoints"),
        ("networkpolicy.networking.k8s.io", NameFault.SINGULAR, "networkpolicies.networking.k8s.io"),
        ("ingress.networking.k8s.io", NameFault.SINGULAR, "ingresses.networking.k8s.io"),
        ("Endpoints", NameFault.KIND, "endpoints"),
        ("Secret", NameFault.SINGULAR, "secrets"),
        ("cm", NameFault.SHORT_NAME, "configmaps"),
        ("deploy.apps", NameFault.SHORT_NAME, "deployments.apps"),
        ("deployments", NameFault.GROUP, "deployments.apps"),
        ("deployment", NameFault.GROUP, "deployments.apps"),
        ("secrets.core", NameFault.GROUP, "secrets"),
        ("networkpolicies.extensions", NameFault.GROUP, "networkpolicies.networking.k8s.io"),
        ("secrets.v1", NameFault.VERSION, "secrets"),
        ("deployments.v1.apps", NameFault.VERSION, "deployments.apps"),
        ("tokens.v3.management.cattle.io", NameFault.VERSION, "tokens.management.cattle.io"),
        ("v1/secrets", NameFault.SLASH, "secrets"),
        ("apps/v1/deployments", NameFault.SLASH, "deployments.apps"),
        ("deployments.apps/v1", NameFault.SLASH, "deployments.apps"),
        ("secrets/status", NameFault.SLASH, "secrets"),
        ("management.cattle.io/tokens", NameFault.SLASH, "tokens.management.cattle.io"),
        ("management.cattle.io/v3/tokens", NameFault.SLASH, "tokens.management.cattle.io"),
        ("secerts", NameFault.SPELLING, "secrets"),
        ("config-maps", NameFault.SPELLING, "configmaps"),
        ("*.apps/v1", NameFault.SLASH, "*.apps"),
        ("*.v1.apps", NameFault.VERSION, "*.apps"),
        ("*.app", NameFault.SPELLING, "*.apps"),
        ("*.rbac.authorisation.k8s.io", NameFault.SPELLING, "*.rbac.authorization.k8s.io"),
        ("*.v1", NameFault.GROUP, "*."),
        ("*.core", NameFault.GROUP, "*."),
    ],
)
def test_the_name_that_was_meant_is_found_without_a_snapshot(name: str, fault: NameFault, meant: str) -> None:
    assert misnamed(name) == Misnamed(name, fault, (meant,))


def test_a_custom_resource_that_looks_like_a_singular_is_doubted_only() -> None:
    found = misnamed("token.management.cattle.io")
    assert found == Misnamed(
        "token.management.cattle.io", NameFault.SINGULAR, ("tokens.management.cattle.io",), certain=False
    )


@pytest.mark.parametrize(
    ("name", "fault", "meant"),
    [
        ("token.management.cattle.io", NameFault.SINGULAR, "tokens.management.cattle.io"),
        ("tokens", NameFault.GROUP, "tokens.management.cattle.io"),
        ("Token", NameFault.GROUP, "tokens.management.cattle.io"),
        ("management.cattle.io.tokens", NameFault.ORDER, "tokens.management.cattle.io"),
        ("tokens.management.cattle.com", NameFault.GROUP, "tokens.management.cattle.io"),
        ("wigdets.example.com", NameFault.SPELLING, "widgets.example.com"),
    ],
)
def test_a_custom_resource_of_the_snapshot_is_meant(name: str, fault: NameFault, meant: str) -> None:
    assert list(unmatched([name], PRESENT)) == [(name, Misnamed(name, fault, (meant,)))]


@pytest.mark.parametrize("name", ["secrets", "secrets.", "*.*", "*.apps", "foos", "foos.example.com"])
def test_what_a_key_of_the_snapshot_has_is_matched(name: str) -> None:
    assert not list(unmatched([name], PRESENT))


@pytest.mark.parametrize("name", ["configmaps", "somethings.else.io"])
def test_a_right_name_without_a_key_is_unmatched_and_no_fault(name: str) -> None:
    assert list(unmatched([name], PRESENT)) == [(name, None)]


@given(
    st.text(max_size=60) | st.text("./*v1sapecrt", max_size=30), st.lists(st.text("./?abs", max_size=12), max_size=4)
)
def test_any_text_has_an_answer(name: str, present: list[str]) -> None:
    found = misnamed(name, present)
    if found is not None:
        assert found.problem
        assert bool(found.question) == bool(found.meant)
    assert len(list(unmatched([name], present))) <= 1

"""Which prefixes evidence speaks for. Rows: prefix, path, objects, encrypted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool.kube.keys import normal_prefix
from snaptool.kube.prefixes import Judgement, PrefixEvidence

Row = tuple[str, str, int, int]


def judged(*rows: Row, given_prefixes: tuple[str, ...] | None = None) -> Judgement:
    evidence = PrefixEvidence()
    for prefix, path, objects, encrypted in rows:
        evidence.add(prefix, path, objects=objects, encrypted=encrypted)
    return evidence.judge(given_prefixes)


@pytest.mark.parametrize(
    "said",
    ["/registry", "/registry/", "registry", "//registry", "/registry/.", "/x/../registry", "registry//", "/./registry"],
)
def test_a_prefix_is_read_as_the_api_server_reads_it(said: str) -> None:
    assert normal_prefix(said) == "/registry"


@pytest.mark.parametrize("said", ["", "/", "//", ".", "/..", "../"])
def test_the_root_is_the_empty_prefix(said: str) -> None:
    assert normal_prefix(said) == ""


def test_one_namespace_is_enough() -> None:
    assert judged(("/k8s", "namespaces", 1, 0)).taken == ("/k8s",)


def test_two_resources_are_enough_whatever_they_are_called() -> None:
    rows = (
        ("/k8s", "secrets", 0, 3),
        ("/k8s", "configmaps", 2, 0),
        ("/agg", "core.x.io/as", 1, 0),
        ("/agg", "core.x.io/bs", 0, 1),
    )
    assert judged(*rows).taken == ("/agg", "/k8s")


def test_one_resource_is_enough_where_nothing_else_is_and_under_a_usual_name() -> None:
    assert judged(("/k8s", "secrets", 0, 1)).taken == ("/k8s",)
    assert judged(("/k8s", "namespaces", 1, 0), ("/openshift.io", "routes", 1, 0)).taken == ("/k8s", "/openshift.io")


def test_one_resource_beside_a_certain_prefix_is_outside_and_named() -> None:
    found = judged(("/registry", "namespaces", 1, 0), ("/copy", "secrets", 1, 4))
    assert found.taken == ("/registry",)
    (outside,) = found.outside
    assert (outside.prefix, outside.resources, outside.objects, outside.encrypted) == ("/copy", ("secrets",), 1, 4)


def test_a_namespace_called_like_a_resource_is_no_prefix() -> None:
    rows = ("/registry", "secrets", 1, 9), ("/registry", "configmaps", 3, 0)
    found = judged(
        *rows,
        ("/registry/secrets", "jobs", 0, 3),
        ("/registry/secrets", "routes", 0, 3),
        ("/registry/jobs", "jobs", 5, 0),
    )
    assert found == Judgement(taken=("/registry",), outside=())


def test_custom_resources_called_like_built_in_ones_make_no_prefix() -> None:
    rows = ("/registry", "x.io/secrets", 0, 3), ("/registry", "x.io/jobs", 0, 3), ("/registry", "namespaces", 1, 0)
    deeper = ("/registry/x.io", "secrets", 0, 3), ("/registry/x.io", "jobs", 0, 3)
    assert judged(*rows, *deeper) == Judgement(taken=("/registry",), outside=())


def test_a_prefix_with_a_dot_is_no_group() -> None:
    rows = ("", "k8s.prod/secrets", 0, 3), ("", "k8s.prod/configmaps", 0, 3)
    deeper = ("/k8s.prod", "secrets", 0, 3), ("/k8s.prod", "configmaps", 0, 3)
    assert judged(*rows, *deeper) == Judgement(taken=("/k8s.prod",), outside=())
    one = ("", "kubernetes.io/secrets", 0, 3), ("/kubernetes.io", "secrets", 0, 3)
    assert judged(*one) == Judgement(taken=("/kubernetes.io",), outside=())


def test_nested_prefixes_are_both_taken() -> None:
    rows = ("/a", "secrets", 0, 1), ("/a", "namespaces", 1, 0), ("/a/b", "secrets", 0, 1), ("/a/b", "configmaps", 0, 1)
    assert judged(*rows).taken == ("/a", "/a/b")
    rows = (
        ("/a", "namespaces", 1, 0),
        ("/a", "b.c/secrets", 0, 2),
        ("/a/b.c", "secrets", 0, 2),
        ("/a/b.c", "namespaces", 1, 0),
    )
    assert judged(*rows).taken == ("/a", "/a/b.c")


def test_the_root_may_be_a_prefix() -> None:
    assert judged(("", "namespaces", 1, 0), ("", "secrets", 0, 4)).taken == ("",)


def test_given_prefixes_are_taken_alone_and_the_others_are_outside() -> None:
    rows = ("/a", "namespaces", 1, 0), ("/a", "secrets", 0, 2), ("/b", "secrets", 0, 2), ("/b", "configmaps", 1, 0)
    found = judged(*rows, given_prefixes=("/b", "/c"))
    assert found.taken == ("/b", "/c")
    assert [one.prefix for one in found.outside] == ["/a"]
    assert found.outside[0].resources == ("namespaces", "secrets")


paths = st.sampled_from(
    ["secrets", "namespaces", "services/specs", "b.c/secrets", "b.c/things", "registry/sdnnetworks"]
)
prefixes = st.sampled_from(
    ["", "/a", "/a/b", "/a/b.c", "/registry", "/kubernetes.io", "/registry/secrets", "/a/services/specs"]
)


@given(
    st.lists(st.tuples(prefixes, paths, st.integers(0, 2), st.integers(0, 2)), max_size=12), st.permutations(range(12))
)
def test_evidence_is_judged_alike_in_any_order_and_nothing_is_taken_without(rows: list[Row], order: list[int]) -> None:
    found = judged(*rows)
    assert judged(*(rows[number] for number in order if number < len(rows))) == found
    with_evidence = {row[0] for row in rows if row[2] or row[3]}
    assert set(found.taken) <= with_evidence
    assert not set(found.taken) & {one.prefix for one in found.outside}
    assert bool(found.taken) == bool(with_evidence)

"""Laws of unwrapping: whatever a service answers, a key counts when it opened a value, and every value is counted."""

from __future__ import annotations

import base64
import os
import shlex
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool.providers.kms import KmsV1Provider, KmsV2Provider
from snaptool.providers.kms_envelope import WrappedSource, decode_envelope
from snaptool.providers.kms_service import Category, KmsAnsweredWrongly, KmsError, KmsRefused, KmsUnreachable
from snaptool.providers.kms_unwrapping import GivenUp, proved_keys, unwrap_sources
from snaptool.providers.kms_words import classify, known_words
from snaptool.providers.provider import Api, KeyDoesNotFit
from tests.support.kms_values import Form, Scripted, Store, local_keks, plaintext_of, stored_value

ANSWERS = st.one_of(
    st.just("right"),
    st.just("right"),
    st.binary(max_size=40),
    st.sampled_from([one for one in Category if one not in (Category.NOT_ASKED, Category.BAD_ANSWER)]),
)
SOURCES = st.lists(
    st.tuples(
        st.sampled_from(["kek-1", "kek-2", "kek-3"]),
        st.lists(st.booleans(), min_size=1, max_size=6),  # is this value where it was sealed?
        st.lists(ANSWERS, min_size=1, max_size=3),  # one after the other, then the last one for ever
    ),
    min_size=1,
    max_size=7,
)


def failure(category: Category) -> KmsError:
    kinds = {Category.UNREACHABLE: KmsUnreachable, Category.TIMEOUT: KmsUnreachable}
    kind = kinds.get(category, KmsAnsweredWrongly if category is Category.WRONG_API else KmsRefused)
    return kind("no", provider="kp", category=category)


class Cluster:
    """Values under some sources, and a service that answers by a script for each."""

    def __init__(self, form: Form, sources: list[tuple[str, list[bool], list[object]]]) -> None:
        self.api = Api.V1 if form in (Form.V1_CBC, Form.V1_GCM) else Api.V2
        self.store = Store()
        self.keys: dict[bytes, bytes] = {}
        self.scripts: dict[bytes, list[object]] = {}
        self.whole: dict[bytes, list[bool]] = {}
        self.key_ids: dict[bytes, str] = {}
        self.asked: Counter[bytes] = Counter()
        for key_id, whole, answers in sources:
            key = os.urandom(32)
            source = local_keks(self.api, current=key_id).wrap(key)
            for one in whole:
                number = len(self.store.values)
                etcd_key = b"/registry/secrets/default/s%d" % number
                bound_to = etcd_key if one else b"/moved from here"
                stored = stored_value(form, source, key, bound_to, plaintext_of(number))
                self.store.values.append((etcd_key, stored))
            digest = self.of(len(self.store.values) - 1)
            self.keys[digest], self.scripts[digest] = key, answers
            self.whole[digest], self.key_ids[digest] = whole, key_id

    def of(self, place: int) -> bytes:
        return decode_envelope(
            self.api, "kp", self.store.values[place][1][len(b"k8s:enc:kms:v1:kp:") :]
        ).source.cache_key

    def unwrap(self, source: WrappedSource) -> bytes:
        script = self.scripts[source.cache_key]
        answer = script[min(self.asked[source.cache_key], len(script) - 1)]
        self.asked[source.cache_key] += 1
        if isinstance(answer, Category):
            raise failure(answer)
        return self.keys[source.cache_key] if answer == "right" else bytes(answer)  # type: ignore[call-overload]

    def every_place(self, cache_keys: object) -> dict[bytes, list[int]]:
        found: dict[bytes, list[int]] = {}
        for place in range(len(self.store.values)):
            if self.of(place) in cache_keys:  # type: ignore[operator]
                found.setdefault(self.of(place), []).append(place)
        return found


@given(st.sampled_from([Form.V1_GCM, Form.V2_SEED, Form.V2_DEK]), SOURCES)
@settings(max_examples=200, deadline=None)
def test_a_source_is_proved_exactly_if_a_right_answer_came_within_two_and_opens_a_value(
    form: Form, sources: list[tuple[str, list[bool], list[object]]]
) -> None:
    cluster = Cluster(form, sources)
    service = Scripted(local_keks(cluster.api), cluster.unwrap)
    (answer,) = unwrap_sources(
        cluster.store.collect(cluster.api),
        [service],
        cluster.store.fetch,
        every_place=cluster.every_place,
        insist=True,
        concurrency=1,
        sleep=lambda _: None,
    )
    proved = dict(proved_keys([answer]))
    assert all(cluster.keys[digest] == key for digest, key in proved.items())
    gone = {Category.UNREACHABLE, Category.SOCKET_PERMISSION}
    for digest, script in cluster.scripts.items():
        heard = [script[min(n, len(script) - 1)] for n in range(cluster.asked[digest])]
        assert (digest in proved) == ("right" in heard and any(cluster.whole[digest]))
        if not any(one in gone for other in cluster.scripts.values() for one in other) and digest not in proved:
            assert cluster.asked[digest] == 2  # given up only after two answers of its own
    missing = [digest for digest in cluster.scripts if digest not in proved]
    assert sum(group.objects for group in answer.failures) == sum(len(cluster.whole[one]) for one in missing)
    assert sum(group.sources for group in answer.failures) == len(missing)
    error = answer.error()
    assert (error is None) == (not missing)
    # The words that the hint names cover what failed, and nothing that is proved is lost by them.
    words = {group.given_up_by for group in answer.failures}
    assert all(any(word.covers(group) for word in words) for group in answer.failures)
    reader = (KmsV1Provider if cluster.api is Api.V1 else KmsV2Provider)("kp", answer.keys)
    for place, (etcd_key, stored) in enumerate(cluster.store.values):
        digest = cluster.of(place)
        try:
            opened = reader.unseal(stored[len(reader.prefix) :], etcd_key).plaintext
        except KeyDoesNotFit:
            opened = None
        whole = [one for whole in cluster.whole.values() for one in whole][place]
        assert opened == (plaintext_of(place) if whole and digest in proved else None)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_a_wrong_key_that_opens_one_aes_cbc_value_by_chance_is_not_proved(wrong: bytes, lucky: int) -> None:
    """Chance is played by a `plausible` that takes anything: then about one wrong key in 250 opens a value."""
    cluster = Cluster(Form.V1_CBC, [("kek-1", [True] * 3, [wrong, wrong])])
    seen: list[bytes] = []

    def takes_some(plaintext: bytes) -> bool:
        seen.append(plaintext)
        return len(seen) % 4 < lucky

    (answer,) = unwrap_sources(
        cluster.store.collect(Api.V1),
        [Scripted(local_keks(Api.V1), cluster.unwrap)],
        cluster.store.fetch,
        plausible=takes_some,
        sleep=lambda _: None,
    )
    if len(seen) < 3:  # that all three open by chance is one in ten million
        assert answer.failures
        assert not dict(proved_keys([answer]))


def spelled(secret: bytes) -> list[str]:
    back = secret[::-1]
    return [
        form
        for one in (secret, back)
        for form in (
            one.hex(),
            one.hex(" "),
            ":".join(f"{byte:02X}" for byte in one),
            " ".join(map(str, one)),
            str(list(one)),
            repr(one),
            one.decode("latin-1"),
            base64.b64encode(one).decode(),
            " ".join(base64.b64encode(one).decode()),
            base64.b32encode(one).decode().lower(),
            base64.a85encode(one).decode(),
            "".join(f"%{byte:02x}" for byte in one),
            " ".join(f"{byte:08b}" for byte in one),
            " ".join(f"0o{byte:o}" for byte in one),
            str(int.from_bytes(one, "big")),
        )
    ]


@given(st.binary(min_size=16, max_size=32))
def test_no_spelling_of_a_secret_gets_into_what_is_shown(secret: bytes) -> None:
    for form in spelled(secret):
        shown = known_words(f"cannot decrypt {form}: permission denied")
        words = [word for word in shown.replace("…", " ").split() if word != "HTTP"]
        assert set(words) - {"cannot", "decrypt", "permission", "denied"} <= set(known_words(form).split()), shown
        assert all(len(word) > 1 and word.isalpha() for word in known_words(form).replace("…", " ").split())
        assert len(known_words(form).replace("…", "").split()) <= 2  # a word that stands there by chance


@given(st.text(), st.sampled_from(["UNKNOWN", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "no such code"]))
def test_any_text_has_a_category_and_shows_as_one_short_line(text: str, code: str) -> None:
    assert isinstance(classify(code, text), Category)
    shown = known_words(text)
    assert shown.isprintable()
    assert len(shown) < 250


@given(st.text(min_size=1), st.from_regex("sha256:[0-9a-f]{64}", fullmatch=True))
def test_options_that_hints_name_are_one_word_for_a_shell(name: str, key_id: str) -> None:
    for word in (GivenUp(name), GivenUp(name, key_id)):
        assert shlex.split(word.option) == ["--kms-lost", str(word)]

"""The generator of the table reads Go's declarations by the rules of docs/formats/kinds.md, "The table of fields": on a
package made for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.generators.kinds import MODULES, Release, lines, unite

META = """\
package v1

// ObjectMeta is metadata.
type ObjectMeta struct {
	Name string `json:"name,omitempty" protobuf:"bytes,1,opt,name=name"`
	CreationTimestamp Time `json:"creationTimestamp,omitempty{zero}" protobuf:"bytes,8,opt,name=creationTimestamp"`
}
"""
TYPES = """\
package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type Words []string

type Color string

/* Base is not
a kind. */
type Base struct {
	// +listType=map
	// +listMapKey=name
	Parts []Part `json:"parts,omitempty" protobuf:"bytes,1,rep,name=parts"`
}

type Part struct {
	Name  string             `json:"name" protobuf:"bytes,1,rep,name=name"`
	Port  intstr.IntOrString `json:"port" protobuf:"bytes,2,opt,name=port"`
	Color *Color             `json:"color,omitempty" protobuf:"bytes,3,opt,name=color"`
	Words map[string]Words   `json:"words,omitempty" protobuf:"bytes,4,rep,name=words"`
	Empty []byte             `json:"empty" protobuf:"bytes,5,opt,name=empty"`
	// Gone string `json:"gone" protobuf:"bytes,9,opt,name=gone"`
}

type Thing struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	Base              `json:",inline" protobuf:"bytes,2,opt,name=base"`
	Hidden            string `json:"-" protobuf:"-"`
}
"""
REGISTER = """\
package v1

const GroupName = "example.com"

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(SchemeGroupVersion, &Thing{}, &ThingList{}, &ThingOptions{})
}
"""
GENERATED = "func (m Words) MarshalTo(dAtA []byte) (int, error) {\n"


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, Path]:
    folders = {name: tmp_path / name.rpartition("/")[2] for name in MODULES}
    places = {
        "api/example/v1": {"types.go": TYPES, "register.go": REGISTER, "generated.pb.go": GENERATED},
        "apimachinery/pkg/apis/meta/v1": {
            "types.go": META.replace("{zero}", ",omitzero"),
            "register.go": "",
            "time.go": 'type Time struct {\n\ttime.Time `protobuf:"-"`\n}\n',
        },
        "kube-aggregator/pkg/apis": {},
    }
    for place, files in places.items():
        (tmp_path / place).mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / place / name).write_text(text)
    return folders


def test_declarations_become_lines_of_the_table(modules: dict[str, Path]) -> None:
    assert list(lines(unite({37: Release(modules)}))) == [
        "@example.com/v1 example/v1 Thing",
        "+example/v1.Base 1=name",
        "example/v1.Base 1parts:*example/v1.Part",
        "example/v1.Part 1name?:s 2port?:n 3color?:s 4words:%&s 5empty!:y",
        "example/v1.Thing 1metadata?:meta/v1.ObjectMeta 2~:example/v1.Base",
        "meta/v1.ObjectMeta 1name:s 8creationTimestamp:t",
    ]


def test_what_an_older_release_showed_in_another_way_is_an_exception(modules: dict[str, Path]) -> None:
    newer = Release(modules)
    types = modules["k8s.io/apimachinery"] / "pkg" / "apis" / "meta" / "v1" / "types.go"
    types.write_text(META.replace("{zero}", ""))
    more = modules["k8s.io/api"] / "example" / "v1" / "types.go"
    more.write_text(TYPES.replace("// Gone string", "Gone string"))
    found = list(lines(unite({36: Release(modules), 37: newer})))
    assert "!meta/v1.ObjectMeta 8 36-36 ?" in found
    assert any(line.startswith("example/v1.Part ") and line.endswith(" 9gone?:s") for line in found)

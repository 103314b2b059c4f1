"""The generated code and docs/api.md belong to the .proto files, these to what was released."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2, status_pb2
from helpers import contract
from helpers.paths import ROOT

PROTOS = ROOT / "protos"
PASCAL = re.compile(r"([A-Z][a-z0-9]+)+")
LOWER_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
UPPER_SNAKE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
PROTOBUF_S_OWN = ("google/protobuf/any.proto", "google/protobuf/duration.proto")
# They take and give the messages of the calls that they are twins of.
TWINS = {"EmbedStream": "Embed", "RerankStream": "Rerank"}


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    """`make protos` would change nothing."""
    subprocess.run([sys.executable, str(PROTOS / "generate.py"), str(tmp_path)], check=True)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert made
    for path in made:
        assert (PROTOS / path).read_text() == (tmp_path / path).read_text(), path


def test_nothing_that_was_released_has_changed() -> None:
    """Names, numbers and types of fields, values of enums, RPCs: `buf breaking` in small."""
    released = set((PROTOS / "released.txt").read_text().splitlines())
    assert released
    assert released <= {line for file in contract.FILES for line in contract.lines(file)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    """Our own contracts, with their comments."""
    sys.path.insert(0, str(PROTOS))
    try:
        from generate import includes  # noqa: PLC0415 - a script, not part of a package
    finally:
        sys.path.remove(str(PROTOS))
    target = tmp_path_factory.mktemp("descriptors") / "set"
    sources = sorted(map(str, (PROTOS / "bertd" / "v1").glob("*.proto")))
    given = [*includes(), "--include_source_info", f"--descriptor_set_out={target}", *sources]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *given], check=True)
    return list(FileDescriptorSet.FromString(target.read_bytes()).file)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    """All .proto files of the folder by name; with nothing but protobuf's own beside them."""
    target = tmp_path_factory.mktemp("shipped") / "set"
    folders = [PROTOS / "googleapis", PROTOS]
    sources = sorted(
        str(path.relative_to(folders["googleapis" not in path.parts]))
        for path in PROTOS.rglob("*.proto")
    )
    given = [*(f"-I{folder}" for folder in folders), f"--descriptor_set_out={target}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *given, *sources], check=True)
    found = FileDescriptorSet.FromString(target.read_bytes()).file
    assert sorted(file.name for file in found) == sources
    return {file.name: file for file in found}


def test_other_languages_find_all_that_is_imported(
    shipped: dict[str, FileDescriptorProto],
) -> None:
    for file in shipped.values():
        assert set(file.dependency) <= {*shipped, *PROTOBUF_S_OWN}, file.name
        assert "/" in file.options.go_package, file.name
        assert file.options.java_package, file.name
        assert file.options.java_multiple_files, file.name


def test_google_rpc_is_as_google_has_it(shipped: dict[str, FileDescriptorProto]) -> None:
    """What is shipped of it may be exchanged for the whole of it."""
    for name, whole in ("status", status_pb2), ("error_details", error_details_pb2):
        file = shipped[f"google/rpc/{name}.proto"]
        options = whole.DESCRIPTOR.GetOptions()
        assert file.options.go_package == options.go_package
        assert file.options.java_package == options.java_package
        theirs = set(contract.lines(whole.DESCRIPTOR))
        pool: Any = DescriptorPool()
        for needed in (any_pb2, duration_pb2):
            pool.AddSerializedFile(needed.DESCRIPTOR.serialized_pb)
        ours = set(contract.lines(pool.Add(file)))
        assert ours <= theirs


def test_everything_is_commented(files: list[FileDescriptorProto]) -> None:
    """Messages, fields, enums and their values, services and RPCs."""
    bare = [f"{file.name}: {name}" for file in files for name in uncommented(file)]
    assert not bare


def uncommented(file: FileDescriptorProto) -> Iterator[str]:
    """Paths are of https://protobuf.com/docs/descriptors: field numbers and indices in turn."""
    commented = {
        tuple(one.path) for one in file.source_code_info.location if one.leading_comments.strip()
    }
    named: dict[tuple[int, ...], str] = {}
    for number, message in enumerate(file.message_type):
        named[4, number] = message.name
        for place, field in enumerate(message.field):
            named[4, number, 2, place] = f"{message.name}.{field.name}"
        for place, oneof in enumerate(message.oneof_decl):
            if not oneof.name.startswith("_"):  # made up for an optional field
                named[4, number, 8, place] = f"{message.name}.{oneof.name}"
    for number, enum in enumerate(file.enum_type):
        named[5, number] = enum.name
        for place, value in enumerate(enum.value):
            named[5, number, 2, place] = value.name
    for number, service in enumerate(file.service):
        named[6, number] = service.name
        for place, method in enumerate(service.method):
            named[6, number, 2, place] = method.name
    assert named
    yield from (name for path, name in named.items() if path not in commented)


def test_names_are_as_buf_lint_wants_them(files: list[FileDescriptorProto]) -> None:
    """https://buf.build/docs/lint/rules, category STANDARD; protos/buf.yaml says what is not."""
    wrong = [f"{file.name}: {problem}" for file in files for problem in problems(file)]
    assert not wrong


def problems(file: FileDescriptorProto) -> Iterator[str]:
    """What is wrong, by rule."""
    rules: list[tuple[str, str, bool]] = [
        ("PACKAGE_VERSION_SUFFIX", file.package, bool(re.search(r"\.v\d+$", file.package))),
        (
            "PACKAGE_DIRECTORY_MATCH",
            file.name,
            str(Path(file.name).parent) == file.package.replace(".", "/"),
        ),
        ("FILE_LOWER_SNAKE_CASE", file.name, matches(LOWER_SNAKE, Path(file.name).stem)),
        ("SYNTAX_SPECIFIED", file.syntax, file.syntax == "proto3"),
        ("IMPORT_NO_PUBLIC", file.name, not file.public_dependency),
    ]
    for message in file.message_type:
        rules.append(("MESSAGE_PASCAL_CASE", message.name, matches(PASCAL, message.name)))
        rules += [
            ("FIELD_LOWER_SNAKE_CASE", f"{message.name}.{one.name}", matches(LOWER_SNAKE, one.name))
            for one in message.field
        ]
        rules += [
            ("ONEOF_LOWER_SNAKE_CASE", f"{message.name}.{one.name}", matches(LOWER_SNAKE, one.name))
            for one in message.oneof_decl
            if not one.name.startswith("_")  # made up for an optional field
        ]
    for enum in file.enum_type:
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
        first = enum.value[0]
        rules += [
            ("ENUM_PASCAL_CASE", enum.name, matches(PASCAL, enum.name)),
            ("ENUM_ZERO_VALUE_SUFFIX", first.name, first.name == f"{prefix}UNSPECIFIED"),
            ("ENUM_FIRST_VALUE_ZERO", first.name, first.number == 0),
            ("ENUM_NO_ALLOW_ALIAS", enum.name, not enum.options.allow_alias),
        ]
        rules += [
            ("ENUM_VALUE_PREFIX", one.name, one.name.startswith(prefix)) for one in enum.value
        ]
        rules += [
            ("ENUM_VALUE_UPPER_SNAKE_CASE", one.name, matches(UPPER_SNAKE, one.name))
            for one in enum.value
        ]
    for service in file.service:
        rules.append(("SERVICE_SUFFIX", service.name, service.name.endswith("Service")))
        for method in service.method:
            base = f".{file.package}.{TWINS.get(method.name, method.name)}"
            rules += [
                ("RPC_PASCAL_CASE", method.name, matches(PASCAL, method.name)),
                ("RPC_REQUEST_STANDARD_NAME", method.name, method.input_type == f"{base}Request"),
                (
                    "RPC_RESPONSE_STANDARD_NAME",
                    method.name,
                    method.output_type == f"{base}Response",
                ),
            ]
    return (f"{rule}: {name}" for rule, name, right in rules if not right)


def matches(pattern: re.Pattern[str], name: str) -> bool:
    return pattern.fullmatch(name) is not None


def test_the_reference_is_fresh(tmp_path: Path) -> None:
    """`make protos` would change nothing in docs/api.md; what it writes is every comment."""
    document = PROTOS.parent / "docs" / "api.md"
    text = document.read_text(encoding="utf-8")
    copy = tmp_path / "api.md"
    copy.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, str(PROTOS / "document.py"), str(copy)], check=True)
    assert copy.read_text(encoding="utf-8") == text
    rows = [line for line in text.partition("<!-- generated")[2].splitlines() if "` = " in line]
    assert rows
    assert not [line for line in rows if line.endswith("|  |")]

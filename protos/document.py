"""Writes docs/api.md's reference from the .proto files: services, messages and their comments.

::

    bertd/v1/*.proto ──protoc──> descriptors with comments ──> Markdown ──> between two comments

``python protos/document.py [DOCUMENT]`` rewrites the section of docs/api.md, or of DOCUMENT. A test
compares.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from generate import ROOT, includes
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

DOCUMENT = ROOT.parent / "docs" / "api.md"
PACKAGE = "bertd/v1"
BEGIN = "<!-- generated: `python protos/document.py` writes what follows -->"
END = "<!-- /generated -->"

# Numbers of the fields in which descriptors hold what they declare: paths of comments are made of
# them. https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6  # of a file
_FIELDS, _VALUES, _METHODS = 2, 2, 2  # of a message, an enum, a service

Comments = dict[tuple[int, ...], str]
_Kinds = FieldDescriptorProto
_SCALARS = {
    _Kinds.TYPE_STRING: "string",
    _Kinds.TYPE_BYTES: "bytes",
    _Kinds.TYPE_BOOL: "bool",
    _Kinds.TYPE_FLOAT: "float",
    _Kinds.TYPE_DOUBLE: "double",
    _Kinds.TYPE_INT32: "int32",
    _Kinds.TYPE_INT64: "int64",
    _Kinds.TYPE_UINT32: "uint32",
    _Kinds.TYPE_UINT64: "uint64",
}


def files() -> list[FileDescriptorProto]:
    """The package's files, with comments."""
    sources = sorted(str(path) for path in (ROOT / PACKAGE).glob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "descriptors"
        flags = ["--include_source_info", f"--descriptor_set_out={output}"]
        code = protoc.main(["protoc", *includes(), *flags, *sources])
        if code:
            raise SystemExit(code)
        return list(FileDescriptorSet.FromString(output.read_bytes()).file)


def render() -> str:
    """The reference in Markdown."""
    parsed = [(file, _comments(file)) for file in files()]
    lines: list[str] = []
    for file, comments in parsed:
        for number, service in enumerate(file.service):
            lines += _service(file, service, comments, (_SERVICES, number))
    lines += ["## Messages", ""]
    for file, comments in parsed:
        for number, message in enumerate(file.message_type):
            lines += _message(file, message, comments, (_MESSAGES, number))
    lines += ["## Enums", ""]
    for file, comments in parsed:
        for number, enum in enumerate(file.enum_type):
            lines += _enum(enum, comments, (_ENUMS, number))
    return "\n".join(lines).strip()


def replaced(document: str, section: str) -> str:
    """The document with a new section.

    Raises:
        ValueError: The comments around it are missing.
    """
    before, begun, rest = document.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"the document needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def _comments(file: FileDescriptorProto) -> Comments:
    return {
        tuple(location.path): location.leading_comments
        for location in file.source_code_info.location
        if location.leading_comments
    }


def _service(
    file: FileDescriptorProto,
    service: ServiceDescriptorProto,
    comments: Comments,
    path: tuple[int, ...],
) -> Iterator[str]:
    yield f"## {file.package}.{service.name}"
    yield ""
    yield _text(comments.get(path, ""))
    yield ""
    yield "| RPC | request | response | |"
    yield "|---|---|---|---|"
    for number, method in enumerate(service.method):
        request = _link(method.input_type, stream=method.client_streaming)
        response = _link(method.output_type, stream=method.server_streaming)
        comment = _cell(comments.get((*path, _METHODS, number), ""))
        yield f"| `{method.name}` | {request} | {response} | {comment} |"
    yield ""


def _message(
    file: FileDescriptorProto,
    message: DescriptorProto,
    comments: Comments,
    path: tuple[int, ...],
) -> Iterator[str]:
    yield f"### {message.name}"
    yield ""
    yield _text(comments.get(path, ""))
    yield ""
    if message.field:
        yield "| field | type | |"
        yield "|---|---|---|"
        for number, field in enumerate(message.field):
            comment = _cell(comments.get((*path, _FIELDS, number), ""))
            yield f"| `{field.name}` = {field.number} | {_type(file, message, field)} | {comment} |"
        yield ""


def _enum(enum: EnumDescriptorProto, comments: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield f"### {enum.name}"
    yield ""
    yield _text(comments.get(path, ""))
    yield ""
    yield "| value | |"
    yield "|---|---|"
    for number, value in enumerate(enum.value):
        comment = _cell(comments.get((*path, _VALUES, number), ""))
        yield f"| `{value.name}` = {value.number} | {comment} |"
    yield ""


def _type(file: FileDescriptorProto, message: DescriptorProto, field: FieldDescriptorProto) -> str:
    """The type as the .proto file writes it."""
    for nested in message.nested_type:
        entry = f".{file.package}.{message.name}.{nested.name}"
        if nested.options.map_entry and field.type_name == entry:
            key, value = (_type(file, message, one) for one in nested.field)
            return f"map of {key} to {value}"
    name = _SCALARS.get(field.type) or _link(field.type_name)
    if field.label == _Kinds.LABEL_REPEATED:
        return f"repeated {name}"
    if field.proto3_optional:
        return f"optional {name}"
    if field.HasField("oneof_index"):
        return f"{name}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return name


def _link(name: str, *, stream: bool = False) -> str:
    short = name.rpartition(".")[2]
    prefix = "stream of " if stream else ""
    if not name.startswith(f".{PACKAGE.replace('/', '.')}."):
        return f"{prefix}`{name.removeprefix('.')}`"
    return f"{prefix}[{short}](#{short.lower()})"


def _text(comment: str) -> str:
    """A comment as paragraphs and lists."""
    return "\n".join(line.removeprefix(" ").rstrip() for line in comment.strip("\n").split("\n"))


def _cell(comment: str) -> str:
    """A comment in one cell of a table."""
    lines = _text(comment).replace("|", "\\|").split("\n")
    return " ".join(f"<br>{line}" if line.startswith("- ") else line.strip() for line in lines)


def main(document: Path = DOCUMENT) -> None:
    """Rewrite the section of a document."""
    text = document.read_text(encoding="utf-8")
    document.write_text(replaced(text, render()), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""The contract of the Open Inference Protocol: as Triton has it, and beside it in one process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from bertd.bundle import Task
from bertd.oip import grpc_service_pb2 as pb
from bertd.oip import model_config_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from helpers.v2_served import Served
from tritonclient.grpc import model_config_pb2 as triton_config_pb
from tritonclient.grpc import service_pb2 as triton_pb


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(pb, triton_pb), (model_config_pb2, triton_config_pb)],
    ids=["rpc", "config"],
)
def test_every_field_has_the_number_and_type_that_triton_gives_it(ours: Any, theirs: Any) -> None:
    """The whole service; of the configuration, what we know of it."""
    compared = 0
    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        same = theirs.DESCRIPTOR.message_types_by_name[name]
        compared += fields_alike(message, same)
    for name, enum in ours.DESCRIPTOR.enum_types_by_name.items():
        same = theirs.DESCRIPTOR.enum_types_by_name[name]
        assert {v.name: v.number for v in enum.values} == {v.name: v.number for v in same.values}
    if ours is pb:
        missing = set(theirs.DESCRIPTOR.message_types_by_name) - set(
            ours.DESCRIPTOR.message_types_by_name
        )
        assert not missing
        service = "GRPCInferenceService"
        methods = [
            {
                method.name: (method.input_type.name, method.output_type.name)
                for method in module.DESCRIPTOR.services_by_name[service].methods
            }
            for module in (ours, theirs)
        ]
        assert methods[0] == methods[1]
        assert compared > 100


def fields_alike(ours: Any, theirs: Any) -> int:
    """Compare a message and those in it; returns the number of fields."""
    for field in ours.fields:
        same = theirs.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (
            same.number,
            same.type,
            same.is_repeated,
        ), field.full_name
        if field.message_type is not None:
            assert field.message_type.full_name == same.message_type.full_name
    return len(ours.fields) + sum(
        fields_alike(one, theirs.nested_types_by_name[one.name]) for one in ours.nested_types
    )


@pytest.mark.parametrize(
    "imports",
    [
        ("tritonclient.grpc", "bertd_server.process.app"),
        ("bertd_server.process.app", "tritonclient.grpc"),
    ],
)
def test_tritons_client_and_our_server_share_a_process(imports: tuple[str, str]) -> None:
    """Whichever is imported first."""
    code = (
        "import importlib; "
        + "; ".join(f"importlib.import_module({name!r})" for name in imports)
        + "; from bertd.oip import grpc_service_pb2 as ours; "
        "from tritonclient.grpc import service_pb2 as theirs; "
        "assert ours.ModelInferRequest is not theirs.ModelInferRequest; "
        "sent = ours.ModelInferRequest(id='x').SerializeToString(); "
        "assert theirs.ModelInferRequest.FromString(sent).id == 'x'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_health_reflection_and_undecodable_messages(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    service = "inference.GRPCInferenceService"
    check = served.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    database = ProtoReflectionDescriptorDatabase(served.channel)
    assert {service, "bertd.v1.InferenceService"} <= set(database.get_services())
    file = database.FindFileContainingSymbol(service)
    (found,) = (one for one in file.service if one.name == "GRPCInferenceService")
    assert len(found.method) == 20
    assert database.FindFileByName("bertd/oip/model_config.proto").package == "inference"
    for path, field in (
        (f"/{service}/ModelInfer", "model_name"),
        ("/grpc.health.v1.Health/Check", "service"),
        ("/grpc.health.v1.Health/Watch", "service"),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "host"),
    ):
        raw: Any = served.channel.unary_stream(path)
        with pytest.raises(grpc.RpcError) as caught:
            list(raw(b"\x0a\x02\xff\xfe"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"{field} is not valid UTF-8" in (caught.value.details() or "")

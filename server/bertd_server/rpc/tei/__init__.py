"""tei.v1, the protocol of text-embeddings-inference: messages to plain values, and back.

Names of fields, statuses and the meaning of what is sent are that server's; docs/tei.md says where
this one differs, and why.
"""

from __future__ import annotations

import asyncio

import grpc
from bertd.tei.v1 import tei_pb2, tei_pb2_grpc

from bertd_server.models.catalogue import Catalogue
from bertd_server.rpc.limits import CallLimits
from bertd_server.rpc.tei import predict
from bertd_server.rpc.tei.embed import EmbedService
from bertd_server.rpc.tei.info import InfoService
from bertd_server.rpc.tei.predict import PredictService
from bertd_server.rpc.tei.rerank import RerankService
from bertd_server.rpc.tei.tokenize import TokenizeService

__all__ = ["SERVICES", "add_services", "unanswered"]

SERVICES = tuple(tei_pb2.DESCRIPTOR.services_by_name.values())

# Of the other services, Info and Tokenize, health never says NOT_SERVING for the model's task.
_TASKS = {
    "tei.v1.Embed": frozenset({"feature-extraction", "fill-mask"}),
    "tei.v1.Predict": frozenset(predict.TASKS),
    "tei.v1.Rerank": frozenset({"text-ranking"}),
}


def add_services(
    models: Catalogue, limits: CallLimits, server: grpc.aio.Server, closing: asyncio.Event
) -> None:
    """Serve all services of the protocol; their streams end once `closing` is set."""
    tei_pb2_grpc.add_InfoServicer_to_server(InfoService(models, limits, closing), server)
    tei_pb2_grpc.add_EmbedServicer_to_server(EmbedService(models, limits, closing), server)
    tei_pb2_grpc.add_PredictServicer_to_server(PredictService(models, limits, closing), server)
    tei_pb2_grpc.add_RerankServicer_to_server(RerankService(models, limits, closing), server)
    tei_pb2_grpc.add_TokenizeServicer_to_server(TokenizeService(models, limits, closing), server)


def unanswered(models: Catalogue) -> list[str]:
    """Names of services that none of the models answers."""
    served = {model.manifest.task for model in models.models()}
    return [name for name, tasks in _TASKS.items() if not tasks & served]

"""All routes over the models of a catalogue."""

from __future__ import annotations

from bertd_server.http import openapi
from bertd_server.http.front import Route
from bertd_server.http.huggingface import HuggingFaceCalls
from bertd_server.http.methods import MethodCalls
from bertd_server.http.openai import OpenAiCalls
from bertd_server.http.rerank import RerankCalls
from bertd_server.http.tei import TeiCalls
from bertd_server.http.tensors import TensorCalls
from bertd_server.rpc.services import Services
from bertd_server.rpc.tei.info import InfoService
from bertd_server.rpc.tei.tokenize import TokenizeService
from bertd_server.rpc.v1 import InferenceService, ModelService
from bertd_server.rpc.v2 import OpenInferenceService
from bertd_server.security.management import Management


def routes_of(services: Services, management: Management) -> list[Route]:
    """What is answered, those first that are asked most.

    Args:
        services: over the models.
        management: whether calls may change what is served.
    """
    models, limits, closing = services.models, services.limits, services.closing
    tei = TeiCalls(
        models,
        limits,
        serving=lambda: services.health.serving,
        info=InfoService(models, limits, closing),
        tokens=TokenizeService(models, limits, closing),
    )
    rerank = RerankCalls(models, limits)
    inference = InferenceService(models, limits, closing=closing)
    tensors = OpenInferenceService(
        models,
        services.repository,
        management,
        limits=limits,
        serving=lambda: services.health.serving,
        closing=closing,
    )
    found = [
        *OpenAiCalls(models, limits).routes(),
        *rerank.routes(),
        *tei.routes(),
        *HuggingFaceCalls(models, limits, tei, rerank).routes(),
        *TensorCalls(models, tensors).routes(),
        *MethodCalls(models, inference, ModelService(models)).routes(),
    ]
    return [*found, openapi.route_of(found)]

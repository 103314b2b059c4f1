"""Tools that speak HTTP or gRPC, as people use them, against a running server: one line for each.

They are too heavy, and agree too little on versions, to be in the project's environment, or all in
one (KServe's SDK and MLServer want different protobufs):

    python -m venv .tools && .tools/bin/pip install langchain-openai litellm langchain-cohere …
    bertd serve --repository ROOT --http-api 127.0.0.1:8003   # models VECTORS, RANKS and LABELS
    .tools/bin/python tests/tools/http_tools.py http://127.0.0.1:8003 127.0.0.1:8001 VECTORS RANKS

Those of Node are in http_tools.mjs.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TEXTS = ["the cat sat on a mat", "a dog in the rain"]
KEY = "none"


@dataclass(frozen=True)
class Server:
    """A server, and its models."""

    url: str
    grpc: str
    vectors: str
    ranks: str

    @property
    def v1(self) -> str:
        """The address that OpenAI's clients take."""
        return f"{self.url}/v1"


def langchain_openai(server: Server) -> int:
    from langchain_openai import OpenAIEmbeddings

    made: Any = OpenAIEmbeddings(
        model=server.vectors,
        base_url=server.v1,
        api_key=KEY,
        check_embedding_ctx_length=False,
    )
    return len(made.embed_documents(TEXTS)) + len(made.embed_query(TEXTS[0])[:0])


def litellm_embedding(server: Server) -> int:
    import litellm

    found = litellm.embedding(
        model=f"openai/{server.vectors}", input=TEXTS, api_base=server.v1, api_key=KEY
    )
    assert all(isinstance(one["embedding"], list) for one in found.data)
    return len(found.data)


def litellm_rerank(server: Server) -> int:
    import litellm

    for provider in ("cohere", "jina_ai", "infinity"):
        found = litellm.rerank(
            model=f"{provider}/{server.ranks}",
            query="cat",
            documents=TEXTS,
            top_n=2,
            api_base=f"{server.url}/v1/rerank" if provider != "infinity" else server.url,
            api_key=KEY,
        )
        assert len(found.results or []) == 2, provider
    return 2


def langchain_cohere(server: Server) -> int:
    from langchain_cohere import CohereRerank

    made: Any = CohereRerank(model=server.ranks, base_url=server.url, cohere_api_key=KEY)
    return len(made.rerank(documents=TEXTS, query="cat", top_n=2))


def llama_index_openai(server: Server) -> int:
    from llama_index.embeddings.openai import OpenAIEmbedding

    made: Any = OpenAIEmbedding(model_name=server.vectors, api_base=server.v1, api_key=KEY)
    return len(made.get_text_embedding_batch(TEXTS))


def llama_index_tei(server: Server) -> int:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    made: Any = TextEmbeddingsInference(model_name=server.vectors, base_url=server.url)
    return len(made.get_text_embedding_batch(TEXTS))


def haystack_openai(server: Server) -> int:
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder
    from haystack.utils import Secret

    made = OpenAIDocumentEmbedder(
        api_key=Secret.from_token(KEY), model=server.vectors, api_base_url=server.v1
    )
    found = made.run([Document(content=text) for text in TEXTS])["documents"]
    return sum(one.embedding is not None for one in found)


def haystack_huggingface(server: Server) -> int:
    from haystack import Document
    from haystack_integrations.components.embedders.huggingface_api import (
        HuggingFaceAPIDocumentEmbedder,
    )

    made = HuggingFaceAPIDocumentEmbedder(
        api_type="text_embeddings_inference", api_params={"url": server.url}
    )
    found = made.run([Document(content=text) for text in TEXTS])["documents"]
    return sum(one.embedding is not None for one in found)


def infinity_client(server: Server) -> int:
    from infinity_client import Client
    from infinity_client.api.default import classify, embeddings, health, models, rerank
    from infinity_client.models import OpenAIEmbeddingInputText, RerankInput

    del classify
    client = Client(base_url=server.url)
    with client:
        given = OpenAIEmbeddingInputText(input_=TEXTS, model=server.vectors)
        found: Any = embeddings.sync(client=client, body=given)
        asked = RerankInput(query="cat", documents=TEXTS, model=server.ranks)
        ranked: Any = rerank.sync(client=client, body=asked)
        assert len(ranked.results) == 2
        listed: Any = models.sync(client=client)
        assert any(one.id == server.vectors for one in listed.data)
        assert health.sync(client=client) is not None
        return len(found.data)


def tei_client(server: Server) -> int:
    import tei_client

    made: Any = tei_client.HttpClient(server.url)
    return len(made.embed(TEXTS))


def kserve_rest(server: Server) -> int:
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    async def ask() -> int:
        client = InferenceRESTClient(config=RESTConfig(protocol="v2"))
        assert await client.is_server_ready(server.url)
        assert await client.is_server_live(server.url)
        assert await client.is_model_ready(server.url, server.vectors)
        given = InferInput("text", [2, 1], "BYTES", data=[[text] for text in TEXTS])
        request = InferRequest(model_name=server.vectors, infer_inputs=[given])
        found: Any = await client.infer(server.url, request, model_name=server.vectors)
        return int(found.outputs[0].shape[0])

    return asyncio.run(ask())


def kserve_grpc(server: Server) -> int:
    import numpy as np
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    async def ask() -> int:
        client = InferenceGRPCClient(server.grpc)
        given = InferInput("text", [2, 1], "BYTES")
        given.set_data_from_numpy(np.array([[text] for text in TEXTS], object))
        request = InferRequest(
            model_name=server.vectors,
            infer_inputs=[given],
            parameters={"binary_data_output": True},
        )
        found: Any = await client.infer(infer_request=request)
        return int(found.outputs[0].as_numpy().shape[0])

    return asyncio.run(ask())


def mlserver_request() -> Any:
    """What MLServer's codecs make of texts."""
    from mlserver.codecs import StringRequestCodec
    from mlserver.types import Parameters, RequestOutput

    request = StringRequestCodec.encode_request(TEXTS)
    request.inputs[0].name = "text"
    request.outputs = [
        RequestOutput(name="sentence_embedding", parameters=Parameters(content_type="np"))
    ]
    return request


def mlserver_rest(server: Server) -> int:
    import httpx
    from mlserver.codecs import NumpyCodec
    from mlserver.types import InferenceResponse

    sent = mlserver_request().model_dump_json()
    answer = httpx.post(f"{server.url}/v2/models/{server.vectors}/infer", content=sent)
    found = InferenceResponse.model_validate_json(answer.content)
    return int(NumpyCodec.decode_output(found.outputs[0]).shape[0])


def mlserver_grpc(server: Server) -> int:
    import grpc
    from mlserver.codecs import NumpyCodec
    from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
    from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

    sent = ModelInferRequestConverter.from_types(
        mlserver_request(), model_name=server.vectors, model_version=""
    )
    with grpc.insecure_channel(server.grpc) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(sent)
    found = ModelInferResponseConverter.to_types(answer)
    return int(NumpyCodec.decode_output(found.outputs[0]).shape[0])


def pymilvus_tei(server: Server) -> int:
    from pymilvus.model.dense import TEIEmbeddingFunction

    return len(TEIEmbeddingFunction(api_url=server.url).encode_documents(TEXTS))


def chroma_openai(server: Server) -> int:
    from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

    made: Any = OpenAIEmbeddingFunction(api_key=KEY, api_base=server.v1, model_name=server.vectors)
    return len(made(TEXTS))


def lancedb_openai(server: Server) -> int:
    """It takes OpenAI's names alone, so VECTORS is to be served as one; its key is no argument."""
    os.environ.setdefault("OPENAI_API_KEY", KEY)
    import lancedb
    from lancedb.embeddings import get_registry
    from lancedb.pydantic import LanceModel, Vector
    from pydantic import create_model

    width = len(embedded(server)[0])
    made: Any = get_registry().get("openai")
    function = made.create(name=server.vectors, base_url=server.v1, dim=width)
    fields: Any = {
        "text": (str, function.SourceField()),
        "vector": (Vector(width), function.VectorField()),
    }
    schema: Any = create_model("Row", __base__=LanceModel, **fields)
    with tempfile.TemporaryDirectory() as folder:
        table = lancedb.connect(folder).create_table("texts", schema=schema)
        table.add([{"text": text} for text in TEXTS])
        found = table.search(TEXTS[1]).limit(2).to_list()
    assert found[0]["text"] == TEXTS[1]
    return len(found)


def mem0_openai(server: Server) -> int:
    from mem0.configs.embeddings.base import BaseEmbedderConfig
    from mem0.embeddings.openai import OpenAIEmbedding

    asked = BaseEmbedderConfig(model=server.vectors, api_key=KEY, openai_base_url=server.v1)
    made = OpenAIEmbedding(asked)
    return sum(bool(made.embed(text)) for text in TEXTS)


def qdrant(server: Server) -> int:
    """It asks nobody for vectors: they are put into it, and searched there."""
    from qdrant_client import QdrantClient, models

    vectors = embedded(server)
    client = QdrantClient(":memory:")
    size = models.VectorParams(size=len(vectors[0]), distance=models.Distance.COSINE)
    client.create_collection("texts", vectors_config=size)
    points = [models.PointStruct(id=id_, vector=one) for id_, one in enumerate(vectors)]
    client.upsert("texts", points)
    found = client.query_points("texts", query=vectors[1], limit=2).points
    assert found[0].id == 1
    return len(found)


def embedded(server: Server) -> list[list[float]]:
    """Vectors of the texts, by OpenAI's client."""
    import openai

    client = openai.OpenAI(base_url=server.v1, api_key=KEY)
    made = client.embeddings.create(model=server.vectors, input=TEXTS)
    return [one.embedding for one in made.data]


TOOLS: dict[str, tuple[str, Callable[[Server], int]]] = {
    "LangChain, OpenAIEmbeddings": ("langchain-openai", langchain_openai),
    "LangChain, CohereRerank": ("langchain-cohere", langchain_cohere),
    "litellm, embedding": ("litellm", litellm_embedding),
    "litellm, rerank (cohere, jina, infinity)": ("litellm", litellm_rerank),
    "LlamaIndex, OpenAIEmbedding": ("llama-index-embeddings-openai", llama_index_openai),
    "LlamaIndex, TextEmbeddingsInference": (
        "llama-index-embeddings-text-embeddings-inference",
        llama_index_tei,
    ),
    "Haystack, OpenAIDocumentEmbedder": ("haystack-ai", haystack_openai),
    "Haystack, HuggingFaceAPIDocumentEmbedder": ("huggingface-api-haystack", haystack_huggingface),
    "infinity-client": ("infinity-client", infinity_client),
    "tei-client": ("tei-client", tei_client),
    "KServe, InferenceRESTClient": ("kserve", kserve_rest),
    "KServe, InferenceGRPCClient": ("kserve", kserve_grpc),
    "MLServer's codecs, HTTP": ("mlserver", mlserver_rest),
    "MLServer's codecs, gRPC": ("mlserver", mlserver_grpc),
    "pymilvus, TEIEmbeddingFunction": ("pymilvus-model", pymilvus_tei),
    "Chroma, OpenAIEmbeddingFunction": ("chromadb", chroma_openai),
    "LanceDB, openai": ("lancedb", lancedb_openai),
    "mem0, OpenAIEmbedding": ("mem0ai", mem0_openai),
    "Qdrant, in memory": ("qdrant-client", qdrant),
}


def main() -> int:
    """Try each tool that is installed."""
    server = Server(*sys.argv[1:5])
    failed = 0
    for name, (package, tried) in TOOLS.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            print(f"{name:42} not installed: {package}")
            continue
        try:
            count = tried(server)
            said = "works" if count == len(TEXTS) else f"answered {count} of {len(TEXTS)}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what a user would see
            said = f"{type(error).__name__}: {str(error)[:300]}"
        failed += said != "works"
        print(f"{name:42} {package} {version:10} {said}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

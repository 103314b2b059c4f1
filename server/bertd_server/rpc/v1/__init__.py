"""bertd.v1: messages to plain values, and back."""

from bertd_server.rpc.v1.inference import InferenceService
from bertd_server.rpc.v1.models import ModelService

__all__ = ["InferenceService", "ModelService"]

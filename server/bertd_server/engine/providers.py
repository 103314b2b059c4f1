"""What computes a graph: names for settings, and a clear word where this machine lacks it."""

from __future__ import annotations

import onnxruntime as ort

from bertd_server.errors import CannotServeError, MisusedError
from bertd_server.system.setting_types import Provider

CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"

# Setting -> ONNX Runtime's names, best first: what one cannot compute, the next one does.
_CHAINS: dict[Provider, tuple[str, ...]] = {
    "cpu": (CPU,),
    "cuda": (_CUDA, CPU),
    "tensorrt": ("TensorrtExecutionProvider", _CUDA, CPU),
    "openvino": ("OpenVINOExecutionProvider", CPU),
}
_PACKAGES: dict[Provider, str] = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu and TensorRT",
    "openvino": "onnxruntime-openvino",
}


def chain(provider: Provider) -> list[str]:
    """ONNX Runtime's names of a provider and of those that help it out.

    Raises:
        MisusedError: the installed ONNX Runtime does not have it.
    """
    available = ort.get_available_providers()
    if _CHAINS[provider][0] not in available:
        here = [name for name, names in _CHAINS.items() if names[0] in available]
        raise MisusedError(
            f"provider {provider} is not in this ONNX Runtime, which has {', '.join(here)}: "
            f"choose one of these with --provider, or install {_PACKAGES[provider]}"
        )
    return [name for name in _CHAINS[provider] if name in available]


def check_started(provider: Provider, running: list[str]) -> None:
    """Refuse a session that fell back to another provider, which ONNX Runtime does in silence.

    Args:
        provider: what was asked for.
        running: what the session has.

    Raises:
        CannotServeError: it is another one.
    """
    if running[0] != _CHAINS[provider][0]:
        raise CannotServeError(
            f"provider {provider} does not start on this machine; ONNX Runtime fell back to "
            f"{running[0]}: check the device and its driver, or choose --provider cpu"
        )

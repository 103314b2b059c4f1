"""Kernels of bertd: a library of operators that ONNX Runtime loads.

::

    options.add_session_config_entry(ISA_ENTRY, "avx2")        instruction set; "auto" chooses
    options.add_session_config_entry(OPS_ENTRY, "PackedMean")  functions whose place is taken
    options.register_custom_ops_library(str(LIBRARY))

Nothing is loaded before it is asked for, and ONNX Runtime is not imported.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal

LIBRARY = Path(
    os.environ.get("BERTD_NATIVE_LIBRARY", Path(__file__).with_name("libbertd_native.so"))
)
"""The shared library; another one for whoever works on it."""

ISA_ENTRY = "bertd.native.isa"
"""Key of the session's entry that names the instruction set; without it, ``auto``."""

OPS_ENTRY = "bertd.native.ops"
"""Key of the session's entry that names operators, joined by commas; without it, all."""

ATTENTION_ENTRY = "bertd.native.attention"
"""Key of the session's entry with the precision of attention's products: ``fp32``, as it is without
one, or ``bf16``."""

AUTO = "auto"
"""The fastest instruction set that this CPU has and that is faster than stock operators."""

_SEQUENCES = "cu_seqlens"
_SEPARATE = ("q", "k", "v", _SEQUENCES)
_TAKES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "PackedAttention": (("qkv", _SEQUENCES), _SEPARATE),
    "PackedFirstAttention": (_SEPARATE,),
    "PackedLocalAttention": (_SEPARATE,),
    "PackedBiasedAttention": (("qkv", _SEQUENCES, "distances"), (*_SEPARATE, "distances")),
    "PackedMean": (("x", _SEQUENCES),),
    "PackedMax": (("x", _SEQUENCES),),
    "PackedWeightedMean": (("x", _SEQUENCES),),
}
_FP32 = "Fp32"
_FP32_TAKES = ("x", "weight", "bias", "stream", "gamma", "beta")
_INT8 = "Int8"
_INT8_TAKES = (
    "x",
    "weight",
    "x_scale",
    "weight_scale",
    "x_zero",
    "bias",
    "floor",
    "stream",
    "gamma",
    "beta",
    "smooth",
    "y_scale",
    "y_zero",
)
"""With what the inputs of a function begin that an operator can take the place of.

An operator cannot hand a node back once it is registered, so that this is looked at before. What
changes the meaning of a function changes its name, or the names of its inputs.
"""

INSTRUCTION_SETS = ("portable", "avx2", "avx512", "amx")
"""What the library has code for."""

_EACH_NAME = ctypes.CFUNCTYPE(None, ctypes.c_char_p)

__version__ = metadata.version("bertd-native")


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    library.bertd_native_isa.restype = ctypes.c_char_p
    library.bertd_native_ops.restype = None
    library.bertd_native_bf16_attention.restype = ctypes.c_int
    return library


def instruction_set(wanted: str = AUTO) -> str | None:
    """Name of the instruction set that runs for the one wanted; None where this CPU lacks it."""
    found: bytes | None = _library().bertd_native_isa(wanted.encode())
    return None if found is None else found.decode()


def available() -> tuple[str, ...]:
    """The instruction sets that run on this CPU."""
    return tuple(name for name in INSTRUCTION_SETS if instruction_set(name))


def attention(functions: Mapping[str, tuple[str, ...]], isa: str = AUTO) -> Literal["fp32", "bf16"]:
    """Which precision of attention's products a graph gets, given its functions.

    ``bf16`` where the CPU has tiles of it and linear layers are int8, whose levels are coarser.
    """
    coarse = any(name.startswith(_INT8) for name in functions)
    return "bf16" if coarse and _library().bertd_native_bf16_attention(isa.encode()) else "fp32"


def operators(isa: str = AUTO) -> frozenset[str]:
    """Names of the functions, of the domain ``bertd``, that an instruction set has kernels for."""
    names: list[bytes] = []
    _library().bertd_native_ops(isa.encode(), _EACH_NAME(names.append))
    return frozenset(name.decode() for name in names)


def fitting(functions: Mapping[str, tuple[str, ...]], isa: str = AUTO) -> tuple[str, ...]:
    """Names of the functions, given with the names of their inputs, that operators replace."""
    mine = operators(isa)
    return tuple(
        sorted(
            name
            for name, inputs in functions.items()
            if name in mine and any(inputs[: len(taken)] == taken for taken in _takes(name))
        )
    )


def _takes(name: str) -> tuple[tuple[str, ...], ...]:
    if name.startswith(_FP32):
        return (_FP32_TAKES,)
    return (_INT8_TAKES,) if name.startswith(_INT8) else _TAKES[name]

"""Rounds weights to 7 bits so that the error on real inputs is small (GPTQ)."""

import numpy as np
import numpy.typing as npt
import torch
from bertd.bundle.arrays import Float32Array

LEVELS = 63  # AVX2's product of u8 and s8 saturates beyond 7 bits
_DAMPING = 0.01
_BLOCK = 64

Int8s = npt.NDArray[np.int8]


def compensation(gram: Float32Array) -> tuple[npt.NDArray[np.intp], Float32Array]:
    """The order in which input channels are rounded, and how later ones make up for each error.

    Args:
        gram: ``x.T @ x`` of calibration rows, ``[inputs, inputs]``.

    Returns:
        The order (largest first) and the upper Cholesky factor of the inverse of the damped
        Gram matrix in that order. Linear layers with the same input share both.
    """
    hessian = torch.from_numpy(gram).double()
    mean = float(hessian.diagonal().mean())
    hessian.diagonal().add_(_DAMPING * mean if mean > 0 else 1.0)
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    hessian = hessian[order][:, order]
    # J H J = L L^T, so H = U U^T with U = J L J upper; then H^-1 = (U^-1)^T U^-1.
    upper = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)
    identity = torch.eye(len(upper), dtype=upper.dtype)
    inverse = torch.linalg.solve_triangular(upper, identity, upper=True)
    return order.numpy(), inverse.float().numpy()


def round_weight(
    weight: Float32Array, order: npt.NDArray[np.intp], upper: Float32Array
) -> tuple[Int8s, Float32Array]:
    """Round a weight, one input channel after another.

    Args:
        weight: ``[inputs, outputs]``.
        order: from :func:`compensation`.
        upper: from :func:`compensation`.

    Returns:
        Levels, int8 ``[inputs, outputs]`` in ±63, and one scale per output channel.
    """
    largest = np.abs(weight).max(axis=0)
    scales = np.where(largest > 0, largest / LEVELS, 1.0).astype(np.float32)
    left = weight[order] / scales  # in units of a level
    levels = np.empty_like(left)
    for start in range(0, len(left), _BLOCK):
        stop = min(start + _BLOCK, len(left))
        errors = np.empty_like(left[start:stop])
        for row in range(start, stop):
            levels[row] = np.clip(np.rint(left[row]), -LEVELS, LEVELS)
            error = (left[row] - levels[row]) / upper[row, row]
            errors[row - start] = error
            left[row + 1 : stop] -= upper[row, row + 1 : stop, None] * error
        left[stop:] -= upper[start:stop, stop:].T @ errors
    rounded = np.empty(weight.shape, np.int8)
    rounded[order] = levels
    return rounded, scales

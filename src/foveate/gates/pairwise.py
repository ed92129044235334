"""How much each position, or channel, is read by attention between them: 1 on average where shares sum to 1."""

import numpy as np
from numpy.typing import NDArray

_PAIRS = 1 << 22  # that are computed at once


def read_by_all(queries: NDArray, keys: NDArray, scale: float) -> NDArray[np.float32]:
    """Return the mean over the queries of softmax(scale * q k^T), times the number of keys, as (N, 1, Hk, Wk).

    `queries` are (N, D, Hq, Wq), `keys` (N, D, Hk, Wk).
    """
    count = keys[0, 0].size
    step = max(1, _PAIRS // count)
    sums = np.zeros((len(keys), count))
    for total, q, k in zip(sums, queries, keys, strict=True):
        rows = q.reshape(len(q), -1).T
        for begin in range(0, len(rows), step):
            total += _softmax(scale * (rows[begin : begin + step] @ k.reshape(len(k), -1))).sum(0)
    return (sums * (count / queries[0, 0].size)).astype(np.float32).reshape(len(keys), 1, *keys.shape[2:])


def read_in_cross(queries: NDArray, keys: NDArray) -> NDArray[np.float32]:
    """Return the same for softmax(q k^T) over the row and the column of each query; all are (N, D, H, W)."""
    height = keys.shape[2]
    in_row = np.einsum("ndhw,ndhv->nhwv", queries, keys)
    in_column = np.einsum("ndhw,ndgw->nhwg", queries, keys)
    in_column[:, range(height), :, range(height)] = -np.inf  # its own position is in the row already
    shares = _softmax(np.concatenate([in_column, in_row], 3))
    of_column, of_row = shares[..., :height].sum(1), shares[..., height:].sum(2)  # (N, W, G), (N, H, V)
    return (of_column.transpose(0, 2, 1) + of_row)[:, None].astype(np.float32)


def read_by_pooling(scores: NDArray) -> NDArray[np.float32]:
    """Return the same for the softmax of each map of scores (N, M, H, W) over the positions."""
    shares = _softmax(scores.reshape(*scores.shape[:2], -1)).mean(1, keepdims=True)
    return (shares * shares.shape[2]).astype(np.float32).reshape(len(scores), 1, *scores.shape[2:])


def read_linearly(queries: NDArray, keys: NDArray) -> NDArray[np.float32]:
    """Return the same for q k^T / (number of keys) without a softmax: it may be negative, and any on average."""
    mean = queries.mean((2, 3), keepdims=True)
    return (mean * keys).sum(1, keepdims=True).astype(np.float32)


def read_by_neighbours(weights: NDArray, kernel: int) -> NDArray[np.float32]:
    """Return the sum of the weights by which its k x k neighbours read each position, (N, G * k * k, H, W)."""
    taps = weights.reshape(len(weights), -1, kernel, kernel, *weights.shape[2:]).mean(1)
    height, width = weights.shape[2:]
    read = np.zeros((len(weights), 1, height + kernel - 1, width + kernel - 1), np.float32)
    for down in range(kernel):
        for right in range(kernel):
            read[:, 0, down : down + height, right : right + width] += taps[:, down, right]
    half = kernel // 2
    return read[:, :, half : half + height, half : half + width]


def read_channels(queries: NDArray, keys: NDArray, scale: float) -> NDArray[np.float32]:
    """Return how much each channel is read, (N, D, 1, 1), by softmax(scale * q k^T) over the D channels of the keys."""
    q, k = (t.reshape(*t.shape[:2], -1).swapaxes(1, 2)[..., None] for t in (queries, keys))
    return read_by_all(q, k, scale).swapaxes(1, 2)


def by_sample(kind: str, gate: NDArray, samples: int) -> NDArray:
    """Return the channels of a sample together, and the mean map of its groups, which `Ops.group` makes samples."""
    if len(gate) == samples:
        return gate
    if kind == "pairwise":
        return gate.reshape(samples, -1, *gate.shape[2:]).mean(1, keepdims=True)
    return gate.reshape(samples, -1, 1, 1)


def is_map(keys: tuple[int, ...], features: tuple[int, ...]) -> bool:
    """Return whether keys (N, D, Hk, Wk) are positions of features (N, C, H, W), which may be pooled by 2.

    N may be that of groups of channels. Keys may also be channels, as a row of one position each.
    """
    sides = zip(keys[2:], features[2:], strict=True)
    return keys[0] % features[0] == 0 and all(k <= side and (k > 1 or side < 4) for k, side in sides)


def _softmax(energy: NDArray) -> NDArray:
    shares = np.exp(energy - energy.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)

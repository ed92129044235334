"""Operations that have different names in torch, keras.ops and NumPy; `xp` is one of the three."""

from typing import Any


def like(xp: Any, values: Any, other: Any) -> Any:
    """Return values as an array of the kind, type and device of another."""
    if hasattr(xp, "convert_to_tensor"):
        return xp.convert_to_tensor(values, dtype=other.dtype)
    return xp.asarray(values, dtype=other.dtype, device=other.device)


def positions(xp: Any, count: Any, other: Any) -> Any:
    """Return 0, 1, ... up to `count` as an array of the kind, type and device of another; `count` may be symbolic."""
    if hasattr(xp, "convert_to_tensor"):
        return xp.arange(count, dtype=other.dtype)
    return xp.arange(count, dtype=other.dtype, device=other.device)


def constant(xp: Any, x: Any) -> Any:
    """Return x without its gradient."""
    if hasattr(xp, "stop_gradient"):
        return xp.stop_gradient(x)
    return x.detach() if hasattr(x, "detach") else x


def sigmoid(xp: Any, x: Any) -> Any:
    """Return 1 / (1 + exp(-x)); NumPy has no such function, and the formula itself overflows."""
    return xp.sigmoid(x) if hasattr(xp, "sigmoid") else xp.exp(-softplus(xp, -x))


def softplus(xp: Any, x: Any) -> Any:
    """Return log(1 + exp(x)) without overflow; its gradient is sigmoid(x) in every framework, also at 0."""
    return (x + xp.abs(x)) / 2 + xp.log1p(xp.exp(-xp.abs(x)))

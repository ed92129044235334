"""Launch the passes of foveate::coordinate, forward and backward. Torch's own operations do what is small."""

from typing import NamedTuple

import torch
from torch import Tensor

from foveate.kernels.gpu.channel_spatial_forward import Finish
from foveate.kernels.gpu.launches import (
    Map,
    batch_moments,
    ceiling,
    launch,
    norm_gradients,
    power,
    reported,
    weight_on,
)
from foveate.kernels.gpu.line_passes import excite_lines, line_means, line_sums, scale_lines, squeeze_lines
from foveate.kernels.signatures import Coordinate


class LineGates(NamedTuple):
    """The squeezed values (N, M, H + W), the statistics that norm them, and the sigmoids of the lines (N, C, H + W)."""

    squeezed: Tensor
    mean: Tensor
    variance: Tensor
    sigmoids: Tensor


def find_line_gates(given: Coordinate, on: Map, floats: Tensor) -> tuple[LineGates, Tensor]:
    """Compute all but y, and the batch statistics; `floats` keeps the squeezed values."""
    hidden, count = given.squeeze.shape[0], on.height + on.width
    lines = _summed(line_means, on, (), 1)[0]
    squeezed = floats.view(on.samples, hidden, count)
    blocks = {
        "BLOCK_M": min(64, max(16, power(hidden))),
        "BLOCK_L": 16,
        "BLOCK_K": min(64, max(16, power(on.channels))),
    }
    programs = on.samples * ceiling(hidden, blocks["BLOCK_M"]) * ceiling(count, blocks["BLOCK_L"])
    weights = weight_on(given.squeeze, lines), weight_on(given.squeeze_bias, lines)
    launch(squeeze_lines, (programs,), lines, *weights, squeezed, on.channels, hidden, count, **blocks)
    return line_gates(given, on, squeezed)


def line_gates(given: Coordinate, on: Map, squeezed: Tensor) -> tuple[LineGates, Tensor]:
    """Compute the gates from the squeezed values, and the batch statistics."""
    hidden, statistics = squeezed.shape[1], squeezed.new_empty((2, 0))
    mean, variance = given.norm_mean, given.norm_var
    if given.training or mean is None or variance is None:
        mean, variance = batch_moments(squeezed, (0, 2))
        statistics = reported(mean, variance, squeezed.numel() // hidden)
    sigmoids = squeezed.new_empty((on.samples, on.channels, on.height + on.width))
    blocks = {
        "BLOCK_C": min(64, max(16, power(on.channels))),
        "BLOCK_L": 16,
        "BLOCK_K": min(64, max(16, power(hidden))),
    }
    lines = ceiling(on.height, blocks["BLOCK_L"]) + ceiling(on.width, blocks["BLOCK_L"])
    programs = on.samples * ceiling(on.channels, blocks["BLOCK_C"]) * lines
    norm = mean, variance, given.norm_weight.detach(), given.norm_bias.detach()
    layers = [weight_on(w, squeezed) for w in (given.row, given.row_bias, given.column, given.column_bias)]
    args = squeezed, *norm, *layers, sigmoids, on.channels, hidden, on.height, on.width, given.eps
    launch(excite_lines, (programs,), *args, HARDSWISH=given.hardswish, **blocks)
    return LineGates(squeezed, mean, variance, sigmoids), statistics


def apply_line_gates(
    given: Coordinate,
    on: Map,
    sigmoids: Tensor,
    y: Tensor,
    finish: Finish | None = None,
    x: Tensor | None = None,
    added: Tensor | None = None,
) -> None:
    """Write activation(x * gates + added + shortcut) to y, which may be x."""
    shortcut, activation, slope = finish or Finish()
    shortcut, tile = None if shortcut is None else on.of(shortcut), on.tile_of_lines()
    programs = on.samples * ceiling(on.channels, tile["BLOCK_C"]) * ceiling(on.height, tile["BLOCK_H"])
    args = on.x if x is None else x, y, shortcut, sigmoids, added, on.channels, on.height, on.width, given.scale, slope
    launch(scale_lines, (programs,), *args, ACTIVATION=activation, BACKWARDS=True, **tile)


def coordinate_gradients(given: Coordinate, on: Map, dy: Tensor, floats: Tensor, dx: Tensor) -> dict[str, Tensor]:
    """Write dx, and return the gradient of each weight by its name."""
    height, hidden = on.height, given.squeeze.shape[0]
    gates, _ = line_gates(given, on, floats.view(on.samples, hidden, on.height + on.width))
    means, d_logits = _summed(line_sums, on, (dy, gates.sigmoids), 2, given.scale)
    squeeze, row, column = (w.float().flatten(1) for w in (given.squeeze, given.row, given.column))
    normed, active = _activated(given, gates)
    of_rows, of_columns = d_logits[..., :height], d_logits[..., height:]
    d_active = torch.cat((row.T @ of_rows, column.T @ of_columns), 2)
    d_normed = _activation_gradients(d_active, normed, given.hardswish)
    norm = gates.mean, gates.variance, given.norm_weight
    d_squeezed, *of_norm = norm_gradients(d_normed, gates.squeezed, *norm, given.eps, given.training)
    added = squeeze.T @ d_squeezed
    added[..., :height].div_(on.width)
    added[..., height:].div_(on.height)
    apply_line_gates(given, on, gates.sigmoids, dx, x=dy, added=added)
    return {
        "squeeze": torch.einsum("nml,ncl->mc", d_squeezed, means),
        "squeeze_bias": d_squeezed.sum((0, 2)),
        "norm_weight": of_norm[0],
        "norm_bias": of_norm[1],
        "row": torch.einsum("ncl,nml->cm", of_rows, active[..., :height]),
        "row_bias": of_rows.sum((0, 2)),
        "column": torch.einsum("ncl,nml->cm", of_columns, active[..., height:]),
        "column_bias": of_columns.sum((0, 2)),
    }


def _activated(given: Coordinate, gates: LineGates) -> tuple[Tensor, Tensor]:
    """Return the squeezed values after the norm, and after the activation."""
    mean, inverse = gates.mean.float(), 1 / torch.sqrt(gates.variance.float() + given.eps)
    factor = (given.norm_weight.float() * inverse)[:, None]
    normed = (gates.squeezed - mean[:, None]) * factor + given.norm_bias.float()[:, None]
    if given.hardswish:
        return normed, normed * (normed + 3).clamp(0, 6) / 6
    return normed, normed.clamp(min=0)


def _activation_gradients(d: Tensor, normed: Tensor, hardswish: bool) -> Tensor:
    """Return the gradients before the activation; at its kinks they are those of torch."""
    if not hardswish:
        return torch.where(normed <= 0, 0, d)
    return torch.where(normed <= -3, 0, torch.where(normed >= 3, d, d * (normed / 3 + 0.5)))


def _summed(kernel: object, on: Map, more: tuple[Tensor, ...], results: int, *scale: float) -> Tensor:
    """Run a pass that gives `results` values for each line, (results, N, C, H + W), and add its parts."""
    tile = on.tile_of_lines()
    programs, parts, share = on.parts_of_lines(tile)
    shape = on.samples, on.channels, on.height + on.width
    new = on.x.new_empty if parts == 1 else on.x.new_zeros  # a part writes only its own rows
    to = new((results, parts, *shape), dtype=torch.float32)
    launch(
        kernel, (programs, parts), on.x, *more, to, on.samples, on.channels, on.height, on.width, share, *scale, **tile
    )
    return to[:, 0] if parts == 1 else to.sum(1)

"""Every mechanism as plain PyTorch modules, written by hand as its authors would, with their names of the weights.

Benchmarks time them beside ours, and tests compare both: they share no code with the definitions of the catalogue.
"""

from collections.abc import Callable, Mapping

from torch import nn

from benchmarks.references import both, channels, pairs, positions

# By the name of the mechanism with default options: the module for a number of channels.
REFERENCES: Mapping[str, Callable[[int], nn.Module]] = {
    "attention_gate": pairs.AttentionGate,
    "bam": both.BAM,
    "caa": positions.CAA,
    "cbam": both.CBAM,
    "channel": channels.ChannelGate,
    "contrast": channels.Contrast,
    "coordinate": both.Coordinate,
    "cot": pairs.CoT,
    "cpca": both.CPCA,
    "criss_cross": pairs.CrissCross,
    "danet": pairs.Position,
    "double": pairs.Double,
    "eca": channels.ECA,
    "ela": both.ELA,
    "ema": both.EMA,
    "esa": positions.ESA,
    "ese": channels.ESE,
    "fca": channels.FCA,
    "gather_excite": positions.GatherExcite,
    "gct": channels.GCT,
    "global_context": channels.GlobalContext,
    "large_kernel": positions.LKA,
    "lct": channels.LCT,
    "mlca": channels.MLCA,
    "msca": positions.MSCA,
    "nam": channels.NAM,
    "non_local": pairs.NonLocal,
    "parnet": pairs.ParNet,
    "polarized": both.Polarized,
    "scsa": both.SCSA,
    "scse": both.SCSE,
    "se": channels.SE,
    "shuffle": both.Shuffle,
    "simam": positions.SimAM,
    "sk": pairs.SK,
    "smfa": positions.SMFA,
    "spatial": positions.SpatialGate,
    "srm": channels.SRM,
    "strip_pooling": both.StripPooling,
    "triplet": both.Triplet,
}

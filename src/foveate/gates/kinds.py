"""The kinds of gates, and of attention that has no gate."""

from typing import Literal, TypeAlias, get_args

RecordedKind: TypeAlias = Literal["channel", "spatial", "row", "column", "full", "pairwise", "channel_pairs"]
PAIRS: tuple[RecordedKind, ...] = ("pairwise", "channel_pairs")  # attention between them, which has no gate
CHANNEL_KINDS: tuple[RecordedKind, ...] = ("channel", "channel_pairs")  # one value for each channel
KINDS: tuple[RecordedKind, ...] = get_args(RecordedKind)

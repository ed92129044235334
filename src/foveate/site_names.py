"""Names of sites: "layer1.0.bn2" is a module's output, "decoder.blocks.0:skip" an argument that it is called with."""

import re

MARK = ":"
_RANGE = re.compile(r"(.+:.+)\.(\d+)to(\d+)")


def parted(site: str) -> tuple[str, str]:
    """Return the name of the module or layer, and that of its argument, "" for its output."""
    module, _, argument = site.partition(MARK)
    return module, argument


def ranged(site: str) -> tuple[str, tuple[int, int] | None]:
    """Return a site without its range of channels, and the range: "d2.0:input.0to32" has the first 32 channels."""
    found = _RANGE.fullmatch(site)
    return (found[1], (int(found[2]), int(found[3]))) if found else (site, None)


def with_range(site: str, channels: tuple[int, int] | None) -> str:
    """Return the name of the site that has a range of channels of another one."""
    return site if channels is None else f"{site}.{channels[0]}to{channels[1]}"


def joined(module: str, argument: str) -> str:
    """Return the name of a site."""
    return f"{module}{MARK}{argument}" if argument else module

"""Names of sites: "layer1.0.bn2" is a module's output, "decoder.blocks.0:skip" an argument that it is called with."""

MARK = ":"


def parted(site: str) -> tuple[str, str]:
    """Return the name of the module or layer, and that of its argument, "" for its output."""
    module, _, argument = site.partition(MARK)
    return module, argument


def joined(module: str, argument: str) -> str:
    """Return the name of a site."""
    return f"{module}{MARK}{argument}" if argument else module

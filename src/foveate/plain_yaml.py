"""YAML of plain values: text, numbers, and a few levels of lists and mappings of them. PyYAML is imported where it is used."""

from collections.abc import Mapping
from typing import Any

DEEPEST = 16
"""The most lists and mappings within one another. Options and class names need three; PyYAML takes seconds for thousands."""


def load(content: str | bytes) -> Any:
    """Return the values of a YAML text, None for an empty one.

    Raises:
        yaml.YAMLError: it has aliases, of which a few lines unfold to gigabytes, or is nested deeper than `DEEPEST`: it
        is read no further.
        Exception: damaged YAML surfaces as YAMLError, ValueError, AttributeError and others.
    """
    import yaml

    class Plain(yaml.SafeLoader):
        def fetch_more_tokens(self) -> Any:
            if self.flow_level + len(self.indents) > DEEPEST:
                raise yaml.YAMLError(f"lists or mappings nested more than {DEEPEST} deep")
            return super().fetch_more_tokens()

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("an alias (*)")
            return super().compose_node(parent, index)

    return yaml.load(content, Plain)


def dump(values: Mapping[str, Any]) -> str:
    """Return the text of plain values, in their order, that `load` reads again."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(values, Dumper=Plain, sort_keys=False, allow_unicode=True)

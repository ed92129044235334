"""YAML of plain values: text, numbers, and a few levels of lists and mappings of them.

PyYAML is imported when it is first used.
"""

from collections.abc import Mapping
from typing import Any

DEEPEST = 16
"""The deepest allowed nesting. Options and class names need three levels; PyYAML takes seconds for thousands."""


def load(content: str | bytes) -> Any:
    """Return the values of a YAML text, None for an empty one.

    Raises:
        yaml.YAMLError: it has aliases, as a few lines of them can expand to gigabytes, or is nested deeper than
            `DEEPEST`; reading stops there.
        Exception: damaged YAML raises YAMLError, ValueError, AttributeError and others.
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
    """Return plain values, in their order, as a text that `load` can read."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(values, Dumper=Plain, sort_keys=False, allow_unicode=True)

"""The framework-independent part of attaching: traces, selectors, plans, adapter files and transfer of weights."""

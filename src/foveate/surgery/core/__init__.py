"""Attaching, the part that no framework owns: what a run showed, where attention goes, plans, adapter files, transfer of weights."""

"""The report: one self-contained page about a study, made from its records alone."""

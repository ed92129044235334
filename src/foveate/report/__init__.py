"""The report: one self-contained page about a study, made only from its records."""

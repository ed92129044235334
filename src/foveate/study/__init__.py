"""The experiment: does attention help this model on this data, where, and at what cost?"""

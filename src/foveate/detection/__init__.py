"""The mathematics of boxes: heads, assignment, loss, suppression and average precision; no framework is imported here."""

"""The mathematics of boxes: heads, assignment, loss, suppression and average precision; no framework is imported here."""

CONF, IOU, MAX_DET = 0.25, 0.45, 300  # of what is found and shown; average precision takes others

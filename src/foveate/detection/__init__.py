"""The mathematics of detection: heads, assignment, loss, suppression, average precision; it imports no framework."""

CONF, IOU, MAX_DET = 0.25, 0.45, 300  # for detections that are shown; average precision uses others

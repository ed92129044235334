"""The mathematics of detection, without a framework: heads, assignment, loss, suppression, average precision."""

CONF, IOU, MAX_DET = 0.25, 0.45, 300  # for the detections that are shown; average precision uses other values

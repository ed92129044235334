"""Every mechanism of the catalogue as a `keras.Layer` class: `from foveate.keras import CBAM; CBAM()(x)`."""

from foveate.errors import naming_extras

with naming_extras():
    from foveate.bind.keras.attention import Attention, attention, classes
    from foveate.bind.keras.parts import Gate
    from foveate.data.boxes.keras_batches import BoxBatches
    from foveate.gates.record_keras import record
    from foveate.keras.attend import Attend
    from foveate.models.keras_detector import Detector
    from foveate.models.keras_yolov4_tiny import yolov4_tiny
    from foveate.surgery.keras.attaching import attach, detach, load_adapter, plan, save_adapter

_classes = classes()
__all__ = [  # pyright: ignore[reportUnsupportedDunderAll] - the stub lists them
    "Attend",
    "Attention",
    "BoxBatches",
    "Detector",
    "Gate",
    "attach",
    "attention",
    "detach",
    "load_adapter",
    "plan",
    "record",
    "save_adapter",
    "yolov4_tiny",
    *_classes,
]
globals().update(_classes)

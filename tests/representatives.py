"""The mechanisms that stand for all in tests of what carries them; every mechanism has the tests of the catalogue."""

REPRESENTATIVES = ("cbam", "channel", "coordinate", "cross", "eca", "residual_cbam", "se", "spatial")

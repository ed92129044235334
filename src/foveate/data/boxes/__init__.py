"""Images with boxes: the formats, a file each, and the datasets and batches made of them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from foveate.data.boxes.box_data import open_box_data
from foveate.data.boxes.box_folder import open_boxes
from foveate.data.splits import SPLITS
from foveate.errors import DataError


def test_blood_cells(shared: Path):
    root = shared / "data" / "bccd"
    if not root.is_dir():
        pytest.skip(f"needs the blood cells in {root}, which this machine does not have")
    folder = open_boxes(root)
    assert folder.classes == ("Platelets", "RBC", "WBC")
    assert [len(folder.images[split]) for split in SPLITS] == [205, 87, 72]
    counts = Counter(int(label) for part in folder.images.values() for picture in part for label in picture.labels)
    assert dict(counts) == {0: 361, 1: 4155 - 2, 2: 372}
    assert [defect.file for defect in folder.defects] == [
        "Annotations/BloodImage_00338.xml",
        "Annotations/BloodImage_00343.xml",
    ]
    assert all("(RBC) is empty" in defect.what for defect in folder.defects)
    first = next(
        picture
        for part in folder.images.values()
        for picture in part
        if picture.path == "JPEGImages/BloodImage_00000.jpg"
    )
    assert first.boxes[0].tolist() == [259, 176, 491, 376]
    with pytest.raises(DataError, match="2 defects, left out: Annotations/BloodImage_00338"):
        open_boxes(root, on_defect="refuse")
    data = open_box_data(root, imgsz=256)
    image, boxes, labels, _ = data.train[0]
    assert image.shape == (3, 256, 256)
    assert len(boxes) == len(labels) > 0
    truth = data.test.truth(3)
    np.testing.assert_allclose(data.test.letterbox(3).to_image(data.test[3][1].numpy()), truth.boxes, atol=0.01)
    assert data.image("test", 3).shape == (480, 640, 3)

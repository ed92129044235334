"""`foveate sample-data FOLDER`: small images to try the other commands on."""

from pathlib import Path
from typing import Annotated

import typer

from foveate.cli import console, flags


def sample_data(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to write photos/ and boxes/.", show_default=False)
    ],
    json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Write small images to try the commands on: photos/ by split and class, and boxes/ in the YOLO format."""
    from foveate.data.samples import write_samples

    photos, boxes = (path.resolve() for path in write_samples(folder))
    if json:
        console.say_json({"schema": 1, "photos": str(photos), "boxes": str(boxes)})
        return
    console.say(f"Images for study, train, val and predict: {photos}")
    console.say("Boxes for the same commands with --task detect:")
    console.say(boxes)

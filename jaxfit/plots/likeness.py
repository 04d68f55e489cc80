"""Compare two picture files by what is visible: the last digits of numbers must not make them different."""

import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

BLUR = 3.0  # pixels, about a stroke of a letter
LARGEST_CHANGE = 10.0  # of 255


def same_picture(kept: bytes, fresh: bytes) -> bool:
    """Return whether two PNGs or GIFs show the same, frame by frame.

    They do if they are as large, and no channel of their difference, blurred by `BLUR` pixels, exceeds
    `LARGEST_CHANGE` anywhere. A line of the house is w = 3.8 pixels wide and at most 255 levels from its ground; moved
    sideways by d pixels it changes the blurred picture by 255 w d / (sqrt(2 pi e) BLUR^2) = 26 d levels at most, so
    that 10 levels are 0.4 pixels, a sixteenth of a millimeter. A digit of the smallest labels that turns into another
    changes more: some 20 pixels of full ink and more, 255 * 20 / (2 pi BLUR^2) = 90 levels at its middle.
    """
    if kept == fresh:
        return True
    try:
        pictures = [Image.open(io.BytesIO(picture)) for picture in (kept, fresh)]
        if _timing(pictures[0]) != _timing(pictures[1]):
            return False
        return all(_alike(*(_frame(p, i) for p in pictures)) for i in range(getattr(pictures[0], "n_frames", 1)))
    except (OSError, ValueError):  # one of them is no picture
        return False


def _timing(picture: Image.Image) -> list:
    """The milliseconds of every frame, after the size."""
    found: list = [picture.size]
    for i in range(getattr(picture, "n_frames", 1)):
        picture.seek(i)
        found.append(picture.info.get("duration"))
    return found


def _frame(picture: Image.Image, number: int) -> np.ndarray:
    picture.seek(number)
    return np.asarray(picture.convert("RGB"), np.float32)


def _alike(kept: np.ndarray, fresh: np.ndarray) -> bool:
    change = gaussian_filter(fresh - kept, (BLUR, BLUR, 0))
    return bool(np.max(np.abs(change)) <= LARGEST_CHANGE)

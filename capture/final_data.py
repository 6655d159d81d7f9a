"""An annotated recording as the release exports it: `final_data.npy`, and the object's model.

With these two the reader of the release takes the recording like a downloaded one, and
`experiments.convert` makes a dataset of it.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from realdex_jax.data import realdex_export, realdex_layout, realdex_objects, realdex_write
from realdex_jax.data.motion import Motion
from realdex_jax.data.realdex_raw import Recording
from realdex_jax.hand.load import HandModel


def write(
    recording: Recording,
    hand: HandModel,
    trusted: Bool[np.ndarray, " t"],
    vertices: Float[np.ndarray, "v 3"],
    faces: np.ndarray,
) -> Path:
    """Writes both; poses that are not known or not trusted are no numbers, and readers skip them.

    Args:
        recording: With its object's track.
        hand: The hand of its robot.
        trusted: Frames whose object pose counts.
        vertices: Of the object, metres; goes to `models/` beside the recording.
        faces: Corners of its triangles.

    Raises:
        DatasetError: Robot or track cannot be read, or nothing can be written there.
    """
    track = recording.hand(hand)
    world, known = recording.object_track()
    time_s = 1e-9 * (recording.time_ns - recording.time_ns[0])
    arrays = realdex_export.to_release(Motion(time_s, track.phi, world), track.q_wrist)
    for name, value in arrays.items():
        good = known & trusted if name.startswith("object") else track.valid
        arrays[name] = np.where(good.reshape(-1, *[1] * (value.ndim - 1)), value, np.nan)
    path = recording.path / realdex_layout.FINAL
    realdex_write.write(path, realdex_export.final_bytes(arrays))
    model = recording.path.parent / "models" / f"{recording.object_name}.obj"
    realdex_write.write(model, realdex_objects.obj_text(vertices, faces))
    return path

"""Pictures survive as bytes: depth to the bit, colour as the codec says, and lies are refused."""

import io
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from PIL import Image

from capture import codecs
from capture.device import CaptureError


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.uint16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_depth_comes_back_to_the_bit(depth):
    rows, columns = depth.shape
    packed = codecs.encode_depth(depth)
    assert (codecs.decode_depth(packed, (columns, rows), "x") == depth).all()


def test_depth_is_smaller_and_faster_than_png():
    rng = np.random.default_rng(0)
    depth = (900 + np.linspace(0, 500, 640) + rng.normal(0, 2, (576, 640))).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(depth).save(buffer, "PNG", compress_level=1)
    assert len(codecs.encode_depth(depth)) < 0.85 * len(buffer.getvalue())


def test_depth_of_another_size_and_damage_are_refused():
    packed = codecs.encode_depth(np.arange(200, dtype=np.uint16).reshape(10, 20))
    with pytest.raises(CaptureError, match="frame 3: depth of 361 bytes or more; 20 x 9 pixels"):
        codecs.decode_depth(packed, (20, 9), "frame 3")
    with pytest.raises(CaptureError, match="20 x 11 pixels have 440"):
        codecs.decode_depth(packed, (20, 11), "frame 3")
    with pytest.raises(CaptureError, match=r"frame 3: (damaged depth|depth of)"):
        codecs.decode_depth(b"\xff" + packed[1:], (20, 10), "frame 3")
    with pytest.raises(CaptureError, match="depth of"):
        codecs.decode_depth(packed[:-4], (20, 10), "frame 3")


def test_a_depth_bomb_takes_no_more_memory_than_its_picture():
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(bytes(200 * 2**20)) + deflate.flush()
    tracemalloc.start()
    with pytest.raises(CaptureError, match="depth of"):
        codecs.decode_depth(bomb, (64, 64), "x")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_colour_png_is_exact_and_jpeg_near():
    row = np.linspace(0, 255, 64)
    colour = np.stack([np.tile(row, (48, 1)), np.full((48, 64), 90.0), np.tile(row[::-1], (48, 1))])
    colour = colour.transpose(1, 2, 0).astype(np.uint8)
    exact = codecs.decode_colour(codecs.encode_colour(colour, "png"), (64, 48), "x")
    assert (exact == colour).all()
    near = codecs.decode_colour(codecs.encode_colour(colour, "jpeg", 95), (64, 48), "x")
    assert np.abs(near.astype(int) - colour).mean() < 2.0


def test_colour_that_is_not_the_cameras_is_refused():
    grey = io.BytesIO()
    Image.new("L", (64, 48)).save(grey, "PNG")
    for content, message in (
        (codecs.encode_colour(np.zeros((48, 62, 3), np.uint8)), "62 x 48 pixels, mode RGB"),
        (grey.getvalue(), "mode L; the camera's are 64 x 48 of RGB"),
        (b"GIF89a" + bytes(50), "neither PNG nor JPEG"),
        (codecs.encode_colour(np.zeros((48, 64, 3), np.uint8))[:300], "damaged|neither"),
    ):
        with pytest.raises(CaptureError, match=message):
            codecs.decode_colour(content, (64, 48), "frame 7")

"""An image is what its file shows."""

import os
import re
import socket
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxnlt.data import decode

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)
COLOUR = RNG.integers(0, 65536, (6, 9, 3)).astype(np.uint16)


def netpbm(kind, pixels, most=65535):
    return b"%s 9 6 %d\n" % (kind, most) + pixels.astype(">u2").tobytes()


def chunk(name, content):
    crc = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + crc


def png(width, height, bits, colour, rows):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def png16(pixels, colour):
    lines = pixels.astype(">u2").reshape(6, -1)
    return png(9, 6, 16, colour, b"".join(b"\0" + r.tobytes() for r in lines))


def tiff16(pixels, mark, photometric=1):
    """An uncompressed 16-bit TIFF, little (<) or big (>) endian."""
    fields = [(256, 9), (257, 6), (258, 16), (259, 1), (262, photometric)]
    fields += [(273, 122), (277, 1), (278, 6), (279, 108)]
    head = {"<": b"II", ">": b"MM"}[mark] + struct.pack(f"{mark}HI", 42, 8)
    head += struct.pack(f"{mark}H", len(fields))
    for tag, value in fields:
        head += struct.pack(f"{mark}HHIHH", tag, 3, 1, value, 0)
    return head.ljust(122, b"\0") + pixels.astype(f"{mark}u2").tobytes()


@pytest.mark.parametrize(
    "content, expected",
    [
        (png16(GREY, 0), GREY >> 8),
        (png16(COLOUR, 2), COLOUR >> 8),
        (tiff16(GREY, "<"), GREY >> 8),
        (tiff16(GREY, ">"), GREY >> 8),
        (tiff16(GREY, "<", photometric=0), 255 - (GREY >> 8)),
        (netpbm(b"P5", GREY), GREY >> 8),
        (netpbm(b"P6", COLOUR), COLOUR >> 8),
        (netpbm(b"P5", GREY >> 6, 1023), GREY >> 8),
    ],
)
def test_of_16_bits_the_upper_8_are_taken(content, expected, tmp_path):
    path = tmp_path / "wide"
    path.write_bytes(content)
    pixels = decode.read_rgb(path).astype(int)
    if expected.ndim == 2:
        expected = expected[..., None].repeat(3, -1)
    # Of another maximum than 65535 Pillow scales, which rounds.
    assert abs(pixels - expected).max() <= (b"1023" in content[:15])
    assert pixels.dtype == int and pixels.shape == (6, 9, 3)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_wider_pixels_are_refused(mode, tmp_path):
    Image.new(mode, (4, 4), 9).save(tmp_path / "a.tif")
    kind = {"I": "32-bit", "F": "float"}[mode]
    for read in (decode.open_rgb, decode.read_through):
        with pytest.raises(decode.BadImage, match=f"a.tif: .*{kind}.*save it"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["P", "PA", "LA", "L", "1", "RGBA", "LAB"])
def test_other_modes_are_as_pillow_converts_them(mode, tmp_path):
    image = Image.fromarray((COLOUR >> 8).astype(np.uint8))
    if mode == "LAB":
        image = Image.merge(mode, image.split())
    path = tmp_path / ("a.tif" if mode in ("LAB", "PA") else "a.png")
    image.convert(mode).save(path)
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(decode.read_rgb(path), expected)


TURNED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize(
    "form, options",
    [
        ("jpeg", {"quality": 95}),
        ("png", {}),
        ("webp", {"lossless": True}),
        ("tiff", {}),
        ("tiff", {"compression": "tiff_lzw"}),
    ],
)
def test_orientation_is_applied(form, options, tmp_path):
    image, path = Image.fromarray((COLOUR >> 8).astype(np.uint8)), tmp_path
    found = {}
    for orientation in TURNED:
        path = tmp_path / f"{orientation}.{form}"
        exif = Image.Exif()
        exif[0x112] = orientation
        image.save(path, exif=exif, **options)
        found[orientation] = decode.read_rgb(path)
    for orientation, turn in TURNED.items():
        np.testing.assert_array_equal(found[orientation], turn(found[1]))


def test_damaged_exif_spoils_no_image(tmp_path):
    image = Image.new("RGB", (5, 4), (9, 9, 9))
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert decode.read_rgb(tmp_path / "a.jpg").shape == (4, 5, 3)


# What is no image file -------------------------------------------------------


def bomb(path):
    path.write_bytes(png(13_000, 13_000, 8, 0, bytes(13_001 * 13_000)))


def unix_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # its name must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda p: None, "no such file"),
        (lambda p: p.touch(), "empty file"),
        (lambda p: p.mkdir(), "folder, not an image"),
        (os.mkfifo, "FIFO, not an image"),
        (unix_socket, "socket, not an image"),
        (lambda p: p.symlink_to("/dev/zero"), "device, not an image"),
        (lambda p: p.symlink_to("nowhere"), "link that leads nowhere"),
        (lambda p: p.symlink_to(p), "unreadable image (Too many levels"),
        (lambda p: p.write_bytes(b"GIF89a"), "unreadable image"),
        (
            lambda p: Image.new("L", (9, 9)).save(p, "EPS"),
            "unreadable image (EPS is not one of",
        ),
        (bomb, "unreadable image (13000x13000 pixels are more"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_image_is_named_at_once(make, reason, tmp_path):
    path = tmp_path / "a.png"
    make(path)
    tracemalloc.start()
    start = re.escape(f"{path}: {reason}")
    for read in (decode.open_rgb, decode.read_through):
        with pytest.raises(decode.BadImage, match=f"^{start}"):
            read(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_without_permission_it_is_named(tmp_path, monkeypatch):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(decode.Image, "open", refuse)
    with pytest.raises(decode.BadImage, match=r"a.png: .*Permission denied"):
        decode.open_rgb(tmp_path / "a.png")

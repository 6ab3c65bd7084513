"""People's own pictures: which files are read, and what becomes of all others."""

from __future__ import annotations

import io
import math
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin

from gan_zoo.data import pictures
from gan_zoo.data.pictures import load_picture, load_pictures

Image.init()


def noise(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def written(kind: str, picture: Image.Image | None = None) -> bytes:
    """A small picture with EXIF data as a file of this kind; nothing if Pillow can't write it."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2020:01:01 00:00:00"
    for mode in ("RGB", "L", "1"):
        file = io.BytesIO()
        try:
            (picture or noise(24, 20)).convert(mode).save(file, kind, exif=exif)
        except (OSError, ValueError, KeyError, AttributeError):
            continue
        return file.getvalue()
    return b""


KINDS = [kind for kind in sorted(Image.SAVE) if written(kind)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_a_picture_or_is_named(kind: str, tmp_path: Path) -> None:
    whole = written(kind)
    for seed in range(60):
        random = np.random.default_rng(seed)
        damaged = bytearray(whole)
        # Most of what can go wrong is in the first bytes.
        end = min(len(whole), 150 if seed % 2 else len(whole))
        if seed % 3 == 0:
            del damaged[random.integers(end) :]
        else:
            for place in random.integers(0, end, 1 + seed % 7):
                damaged[place] = random.integers(256)
        path = tmp_path / f"{seed}.{kind.lower()}"
        path.write_bytes(damaged)
        read, failed = None, ""
        try:
            read = load_picture(path, 8, 3)
        except ValueError as error:
            failed = str(error)
        if read is None:
            assert failed.startswith(f"'{path}' is not a picture that can be read: ")
        else:
            assert read.shape == (3, 8, 8)


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A grey PNG of this size, with these chunks in place of its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        check = zlib.crc32(name + content)
        parts.append(struct.pack(">I", len(content)) + name + content + struct.pack(">I", check))
    return b"".join(parts)


def broken(name: str) -> bytes:
    """The contents of a file that Pillow refuses by an exception of its own each."""
    if name == "text.png":
        text = zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1))
        rows = zlib.compress(bytes(4 * 5))
        return png(4, 4, (b"zTXt", b"much\0\0" + text), (b"IDAT", rows))
    if name == "cut.avif":
        return written("AVIF")[:-20]
    if name == "header.ppm":
        return b"P6 4 four 255 "
    if name == "drawing.eps":
        return written("EPS")
    return png(*{"large.png": (13_000, 13_000), "bomb.png": (100_000, 100_000)}[name])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text.png", "too large"),
        ("cut.avif", ""),
        ("header.ppm", "four"),
        ("drawing.eps", "none of PNG, JPEG,"),
        ("large.png", "13,000 x 13,000 pixels are more than 67,108,864"),
        ("bomb.png", "10000000000 pixels"),
    ],
)
def test_a_broken_file_is_named_or_skipped(
    name: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def started(*_: Any, **__: Any) -> Image.Image:
        pytest.fail("A picture has started Ghostscript.")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    files = [tmp_path / name, tmp_path / "whole.png"]
    files[0].write_bytes(broken(name))
    noise(9, 9).save(files[1])
    with pytest.raises(ValueError, match=rf"{name}' is not a picture.*{reason}.*when_broken=skip"):
        load_pictures(files, 8, 3)
    read, pixels = load_pictures(files, 8, 3, "skip")
    assert (read, len(pixels)) == (files[1:], 1)
    assert f"{name}' is not a picture" in caplog.text


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_orientation_counts_whatever_else_the_exif_data_has(
    suffix: str, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 1.5
    sound = exif.tobytes()
    # A fraction where Pillow expects an integer.
    odd = sound.replace(b"\x01\x1a\0\x05", b"\x01\x09\0\x05")
    assert odd != sound
    picture = noise(16, 16).quantize(4).convert("RGB")
    turned = []
    for number, data in enumerate((b"", sound, odd)):
        path = tmp_path / f"{number}.{suffix}"
        picture.save(path, exif=data, lossless=True)
        turned.append(load_picture(path, 16, 3))
    assert torch.equal(turned[2], turned[1])
    if suffix != "jpg":
        assert torch.equal(turned[1], turned[0].rot90(-1, (1, 2)))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("float.tif", np.linspace(0, 1, 64, dtype=np.float32)),
        ("whole.tif", np.arange(64, dtype=np.int32)),
        ("float.pfm", np.linspace(0, 1, 64, dtype=np.float32)),
    ],
)
def test_numbers_of_no_known_range_are_refused(
    name: str, values: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(values.reshape(8, 8)).save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}' is not a picture.*32 bits.*8 or 16 bits"):
        load_picture(tmp_path / name, 8, 1)


@pytest.mark.parametrize("name", ["sixteen.png", "sixteen.tif", "sixteen.pgm"])
def test_16_bits_become_their_upper_8(name: str, tmp_path: Path) -> None:
    values = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / name)
    assert np.array_equal(load_picture(tmp_path / name, 8, 1)[0], values >> 8)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_photo_is_decoded_at_a_smaller_size(
    progressive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    photo = noise(8, 6).resize((1600, 1200), Image.Resampling.BICUBIC)
    photo.save(path, quality=95, progressive=progressive)
    with Image.open(path) as whole:
        fitted = ImageOps.fit(whole, (32, 32), Image.Resampling.BICUBIC)
    decoded = []
    fit = ImageOps.fit

    def spy(picture: Image.Image, *arguments: Any) -> Image.Image:
        decoded.append(picture.size)
        return fit(picture, *arguments)

    monkeypatch.setattr(pictures.ImageOps, "fit", spy)
    found = load_picture(path, 32, 3)
    # The libjpeg holds all coefficients of a progressive one anyway.
    assert decoded == [(1600, 1200) if progressive else (200, 150)]
    expected = torch.from_numpy(np.array(fitted)).movedim(2, 0)
    assert (found.int() - expected.int()).abs().max() <= 4


def test_large_pictures_are_decoded_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(8)]
    for path in paths:
        noise(20, 20).save(path)
    monkeypatch.setattr(pictures, "_LARGE", 20 * 20 - 1)
    running, most, lock = 0, 0, threading.Lock()
    fit = ImageOps.fit

    def spy(*arguments: Any) -> Image.Image:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return fit(*arguments)

    monkeypatch.setattr(pictures.ImageOps, "fit", spy)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert len(load_pictures(paths, 8, 3)[1]) == 8
    assert most == 1
    monkeypatch.setattr(pictures, "_LARGE", math.inf)
    load_pictures(paths, 8, 3)
    assert most > 1

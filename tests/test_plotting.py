"""From [-1, 1] to what people look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from gan_zoo.data import MNISTDataModule
from gan_zoo.plotting import display_images, image_grid, read_png, save_gif, save_png, to_uint8


def test_bytes_come_back_as_they_were() -> None:
    data = MNISTDataModule("digits")
    data.setup()
    assert data.test is not None
    normalised = data.test.__getitems__(range(50)).image
    assert torch.equal(to_uint8(normalised), data.test.images[:50])
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_a_grid_lays_images_out_row_by_row(tmp_path: Path) -> None:
    images = torch.stack([torch.full((1, 4, 4), value) for value in (-1.0, 0.0, 1.0)])
    save_png(image_grid(images, columns=2), tmp_path / "grid.png")
    picture = Image.open(tmp_path / "grid.png")
    assert picture.size == (2 * 6 + 2, 2 * 6 + 2)
    assert [picture.getpixel((x, y))[0] for x, y in ((3, 3), (9, 3), (3, 9))] == [0, 128, 255]


def test_display_images_is_a_row_with_titles() -> None:
    figure = display_images(torch.zeros(8, 1, 5, 5), titles=[str(i) for i in range(8)])
    assert [axis.get_title() for axis in figure.axes] == [str(i) for i in range(8)]
    assert len({round(axis.get_position().y0, 3) for axis in figure.axes}) == 1
    assert all(len(axis.images) == 1 for axis in figure.axes)
    colour = display_images(torch.zeros(3, 3, 5, 5), columns=2)
    assert [len(axis.images) for axis in colour.axes] == [1, 1, 1, 0]


def test_display_images_refuses_what_it_cannot_show() -> None:
    with pytest.raises(ValueError, match="0 images"):
        display_images(torch.zeros(0, 1, 5, 5))
    with pytest.raises(ValueError, match="1 titles"):
        display_images(torch.zeros(2, 1, 5, 5), titles=["a"])


def test_an_animation_repeats_and_rests_on_its_last_picture(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), (value, 0, 0)) for value in (0, 100, 200)]
    save_gif(frames, tmp_path / "a.gif", seconds=0.9)
    with Image.open(tmp_path / "a.gif") as animation:
        assert (animation.size, animation.n_frames, animation.info["loop"]) == ((8, 6), 3, 0)
        durations = []
        for number in range(3):
            animation.seek(number)
            durations.append(animation.info["duration"])
            assert abs(animation.convert("RGB").getpixel((0, 0))[0] - 100 * number) < 8
    assert durations == [300, 300, 1300]


def test_what_is_no_picture_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (5000, 5000)).save(tmp_path / "large.png")
    assert read_png(tmp_path / "text.png") is None
    assert read_png(tmp_path / "large.png") is None
    assert read_png(tmp_path / "nowhere.png") is None

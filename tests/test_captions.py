"""Captioned data: what is measured and said, what is held out, the text encoder, people's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gan_zoo.data import CaptionFolderDataModule, MNISTCaptionsDataModule
from gan_zoo.data import captions as captions_module
from gan_zoo.data.captions import Captions, InMemoryCaptions, Near
from gan_zoo.data.mnist_captions import (
    ATTRIBUTES,
    GROUNDS,
    INKS,
    PARAPHRASES,
    slant_and_size,
    stroke_thickness,
    written,
)
from gan_zoo.networks.text import SentenceTransformerEncoder, TextEncoder, text_encoder_from
from tests.test_faults import halved, with_a_bit_flipped


def small_encoder() -> TextEncoder:
    return TextEncoder(embedding_dim=8, max_words=100, word_dim=4, hidden_dim=8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAN_ZOO_CACHE_DIR", str(tmp_path / "cache"))


def captioned(**options: object) -> MNISTCaptionsDataModule:
    """The stand-in digits with captions, their encoder hardly trained."""
    data = MNISTCaptionsDataModule(
        **{
            "name": "digits",
            "text_encoder": small_encoder(),
            "encoder_steps": 2,
            "channels": 3,
            "batch_size": 50,
            **options,
        }
    )
    data.setup()
    return data


def part(dataset: object) -> InMemoryCaptions:
    assert isinstance(dataset, InMemoryCaptions)
    return dataset


def test_thickness_of_a_bar() -> None:
    bar = torch.zeros(2, 28, 28)
    bar[0, 10:13, 4:24] = 1
    bar[1, 4:24, 10:15] = 1
    # Twice the ink over the outline: 2 * 60 / 46 and 2 * 100 / 50.
    assert stroke_thickness(bar).tolist() == pytest.approx([60 / 23, 4.0])


def test_slant_and_size_by_hand() -> None:
    images = torch.zeros(3, 28, 28)
    for step in range(11):
        images[0, 20 - step, 5 + step] = 1
        images[1, 20 - 2 * (step // 2), 15 - step // 2] = 1
    images[2, 9, 9] = images[2, 9, 15] = 0.5
    slant, size = slant_and_size(images)
    assert slant[:2].tolist() == pytest.approx([1.0, -0.5])
    assert size[2].item() == pytest.approx(3.0)


def spoken(caption: str) -> dict[str, int]:
    """What a reader takes a caption to say of each attribute."""
    said: dict[str, int] = {}
    rest = caption
    for ground in sorted(GROUNDS, key=len, reverse=True):
        before = r"(?:on an? )" if f"{ground} ground" in rest else r"(?:on |^)"
        if re.search(rf"{before}?{ground}(?: ground| background|,|$)", rest) and (
            ground not in INKS
        ):
            said["ground"] = list(GROUNDS).index(ground)
            rest = rest.replace(ground, "")
            break
    for name, synonyms in {
        "digit": [ATTRIBUTES["digit"], tuple("0123456789")],
        "ink": [tuple(INKS)],
        "thickness": [("thin", "regular", "thick"), ("fine", "medium", "bold")],
        "slant": [("to the left", "standing upright", "to the right"), ("", "straight", "")],
        "size": [("small", "middle-sized", "large"), ("little", "average", "big")],
    }.items():
        for words in synonyms:
            for value, word in enumerate(words):
                if word and re.search(rf"\b{word}\b", rest):
                    assert said.get(name, value) == value
                    said[name] = value
    return said


def test_captions_say_what_was_measured_and_drawn(tmp_path: Path) -> None:
    data = captioned()
    for dataset in data.parts():
        assert dataset.captions.of_image.shape == (len(dataset), 4)
        for index in range(0, len(dataset), 7):
            attributes = dict(zip(ATTRIBUTES, dataset.attributes[index].tolist(), strict=True))
            texts = dataset.texts(index)
            assert len(set(texts)) == 4
            for row, text in zip(dataset.captions.of_image[index], texts, strict=True):
                said = spoken(text)
                assert said == {name: attributes[name] for name in said}
                mentions = dataset.captions.mentions[row].tolist()
                assert [name in said for name in ATTRIBUTES] == mentions


def test_attributes_are_those_of_the_image(tmp_path: Path) -> None:
    data = captioned(val_size=0)
    train = part(data.train)
    digits, ink, ground, thickness, slant, size = train.attributes.unbind(1)
    images, labels = data.originals(train=True)
    assert torch.equal(digits, labels)
    assert torch.equal(train.labels, labels * len(INKS) + ink)
    shares = images[:, 0] / 255
    for measured, third in (
        (stroke_thickness(shares), thickness),
        (slant_and_size(shares)[0], slant),
    ):
        assert third.bincount().tolist() == pytest.approx([500] * 3, abs=2)
        assert measured[third == 0].max() <= measured[third == 1].min()
        assert measured[third == 1].max() <= measured[third == 2].min()
    sizes = slant_and_size(shares)[1]
    for digit in range(10):
        of = [sizes[(digits == digit) & (size == third)] for third in range(3)]
        assert of[0].max() < of[1].min()
        assert of[1].max() < of[2].min()
    drawn = (train.image(torch.arange(1500)) + 1) * 127.5
    corner, darkest = drawn[:, :, 0, 0], torch.tensor(list(GROUNDS.values()))[ground]
    assert (corner - darkest).abs().max() <= 12.01
    # Where the original is white, the ink is all there is.
    full = images.expand(-1, 3, -1, -1) == 255
    named = torch.tensor(list(INKS.values()))[ink][:, :, None, None].expand_as(drawn)
    assert (drawn - named)[full].abs().max() <= 12.01


def test_some_inks_are_never_seen_in_training(tmp_path: Path) -> None:
    data = captioned(val_size=100)
    missing = data.held_out_inks
    assert missing.bincount(minlength=len(INKS)).max() <= 2
    for dataset in (data.train, data.val, data.test):
        digit, ink = part(dataset).attributes[:, :2].unbind(1)
        assert not (missing[digit] == ink).any()
    seen = part(data.train)
    assert len(seen.labels.unique()) == 10 * (len(INKS) - 1)
    held_out = part(data.held_out)
    digit, ink = held_out.attributes[:, :2].unbind(1)
    assert (missing[digit] == ink).all()
    assert len(held_out) == len(part(data.test)) == 297


def test_data_is_the_seeds(tmp_path: Path) -> None:
    first, again, other = (captioned(seed=seed) for seed in (3, 3, 4))
    assert first.checksum() == again.checksum() != other.checksum()
    assert part(first.train).captions.texts == part(again.train).captions.texts
    assert torch.equal(first.held_out_inks, again.held_out_inks)
    classes = captioned(num_classes=3)
    assert part(classes.train).attributes[:, 0].unique().tolist() == [0, 1, 2]
    few = captioned(train_size=200, val_size=0)
    assert len(part(few.train)) == 200
    # What is thick among all digits stays so among fewer.
    assert torch.equal(few.test.attributes[:, 3:], captioned().test.attributes[:, 3:])  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [16, 32, 64])
def test_sizes_and_batches(tmp_path: Path, size: int) -> None:
    data = captioned(image_size=size)
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (50, 3, size, size)
    assert -1 <= batch.image.min() < batch.image.max() <= 1
    assert batch.caption.shape == batch.wrong_caption.shape == (50, 8)
    assert batch.label.shape == (50,)
    examples = data.examples()
    embeddings = data.text_encoder.encode(data.example_captions)
    torch.testing.assert_close(examples.caption, embeddings)


def test_training_shows_all_captions_of_an_image_and_evaluation_the_first(tmp_path: Path) -> None:
    data = captioned()
    train, test = part(data.train), part(data.test)
    assert train.embeddings is not None
    own = train.embeddings[train.captions.of_image[5]]
    torch.manual_seed(0)
    drawn = train.__getitems__([5] * 200).caption
    same = (drawn[:, None] == own).all(2)
    assert same.any(1).all()
    assert same.sum(0).min() > 20
    first = [test.__getitems__([3]) for _ in range(2)]
    assert torch.equal(first[0].wrong_caption, first[1].wrong_caption)
    assert test.embeddings is not None
    assert torch.equal(first[0].caption[0], test.embeddings[test.captions.of_image[3, 0]])
    averaged = part(captioned(captions_averaged=4).train).__getitems__([5]).caption[0]
    torch.testing.assert_close(averaged, own.mean(0))


def of_labels(labels: list[int], training: bool = True, **options: Any) -> InMemoryCaptions:
    n = len(labels)
    captions = Captions(["a", "b"], torch.ones(2, 1, dtype=torch.bool), torch.zeros(n, 1).long())
    numbers = torch.tensor(labels)
    return InMemoryCaptions(
        (torch.zeros(n, 1, 4, 4),), lambda x: x, numbers, numbers[:, None], captions, 1, training,
        **options,
    )  # fmt: skip


def test_a_wrong_captions_image_is_of_another_class_any_of_them() -> None:
    labels = [2, 0, 2, 5, 0, 2, 2, 5]
    dataset = of_labels(labels)
    torch.manual_seed(0)
    for label in (0, 2, 5):
        others = dataset.other_images(torch.full((4000,), labels.index(label)))
        counts = others.bincount(minlength=len(labels))
        allowed = torch.tensor([other != label for other in labels])
        assert (counts[~allowed] == 0).all()
        expected = 4000 / int(allowed.sum())
        assert counts[allowed].min() > 0.8 * expected
        assert counts[allowed].max() < 1.2 * expected
        chosen = torch.full((3,), labels.index(label))
        fixed = of_labels(labels, training=False).other_images(chosen)
        assert all(labels[i] != label for i in fixed)


def test_near_wrong_captions_are_of_the_same_group() -> None:
    labels, groups = [2, 0, 2, 5, 0, 2, 2, 5], torch.tensor([1, 1, 1, 1, 0, 1, 0, 2])
    near = [Near(0.75, groups, torch.tensor(labels))]
    dataset = of_labels(labels, near=near)
    torch.manual_seed(0)
    for image, near in ((0, [1, 3]), (4, [6]), (3, [0, 1, 2, 5])):
        counts = dataset.other_images(torch.full((8000,), image)).bincount(minlength=8) / 8000
        others = [i for i, label in enumerate(labels) if label != labels[image]]
        expected = torch.zeros(8)
        expected[others] += 0.25 / len(others)
        expected[near] += 0.75 / len(near)
        torch.testing.assert_close(counts, expected, atol=0.02, rtol=0)
    # Of another class in the group of the last image there is none.
    alone = dataset.other_images(torch.full((8000,), 7)).bincount(minlength=8)
    assert alone[[3, 7]].sum() == 0
    assert alone[[0, 1, 2, 4, 5, 6]].min() > 0.8 * 8000 / 6


def test_wrong_captions_never_share_digit_and_ink(tmp_path: Path) -> None:
    data = captioned()
    for dataset in data.parts():
        for _ in range(3):
            other = dataset.other_images(torch.arange(len(dataset)))
            same = dataset.attributes[other, :2] == dataset.attributes[:, :2]
            assert not same.all(1).any()


def test_near_wrong_captions_are_of_another_digit_in_the_same_colours() -> None:
    dataset = part(captioned(near_wrong_captions=1.0).train)
    digit, ink, ground = dataset.attributes[:, :3].unbind(1)
    other = dataset.other_images(torch.arange(len(dataset)))
    alike = ink[other].eq(ink) & ground[other].eq(ground)
    # A few images have no other digit in their colours.
    assert alike.float().mean() > 0.9
    assert not (digit[other] == digit)[alike].any()


def test_measured_wrong_captions_say_what_differs() -> None:
    dataset = part(captioned(near_wrong_captions=0.0, measured_wrong_captions=1.0).train)
    chosen = torch.arange(len(dataset))
    other = dataset.other_images(chosen)
    attributes = dataset.attributes
    alike = (attributes[other, :3] == attributes[chosen, :3]).all(1)
    assert alike.float().mean() > 0.5
    differs = attributes[other] != attributes[chosen]
    assert differs[alike, 3:].any(1).all()
    # Each caption as its own row number, so that it can be told from a batch.
    rows = torch.arange(len(dataset.captions.texts), dtype=torch.float64)
    picked = dataset._embedding(other, rows[:, None], differs)[:, 0].long()
    tells = (dataset.captions.mentions[picked] & differs).any(1)
    could = (dataset.captions.mentions[dataset.captions.of_image[other]] & differs[:, None]).any(2)
    assert torch.equal(tells, could.any(1))
    assert tells.float().mean() > 0.99


def test_the_kinds_of_wrong_captions_share_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"measured_wrong_captions is 0\.6, .* 0\.5: together"):
        captioned(near_wrong_captions=0.5, measured_wrong_captions=0.6)
    labels, groups = [0, 0, 0, 1, 1, 1], torch.tensor([0, 0, 0, 0, 1, 1])
    kinds = torch.tensor([0, 1, 1, 0, 0, 1])
    near = [Near(0.5, groups, torch.tensor(labels)), Near(0.25, groups, kinds)]
    torch.manual_seed(0)
    counts = of_labels(labels, near=near).other_images(torch.zeros(8000, dtype=torch.int64))
    shares = counts.bincount(minlength=6) / 8000
    expected = torch.tensor([0, 1 / 8, 1 / 8, 1 / 2 + 1 / 12, 1 / 12, 1 / 12])
    torch.testing.assert_close(shares, expected, atol=0.02, rtol=0)


def test_one_class_has_no_wrong_captions() -> None:
    with pytest.raises(ValueError, match="one class"):
        of_labels([3, 3, 3])
    assert of_labels([3, 3], training=False).other_images(torch.arange(2)).max() < 2


def test_the_encoder_reads_words_and_their_order_whatever_else_is_in_the_batch() -> None:
    torch.manual_seed(0)
    encoder = small_encoder()
    encoder.learn_vocabulary(["a thin red three", "on a dark blue ground, thin"])
    long = "a thin thin thin thin red three on a dark blue ground"
    alone = encoder.encode(["a thin red three"])
    beside = encoder.encode([long, "A THIN, red three!"])
    torch.testing.assert_close(alone[0], beside[1])
    torch.testing.assert_close(alone, encoder.encode(["a thin purple red three"]))
    assert not torch.allclose(alone, encoder.encode(["three red thin a"]), atol=1e-3)
    torch.testing.assert_close(alone.var(1, correction=0), torch.ones(1), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="No word of the caption 'ein rotes'"):
        encoder.encode(["a three", "ein rotes"])


def test_the_vocabulary_is_the_commonest_words_and_travels_with_the_weights(
    tmp_path: Path,
) -> None:
    encoder = TextEncoder(embedding_dim=4, max_words=2, word_dim=2, hidden_dim=2)
    encoder.learn_vocabulary(["b a", "a c c b a", "b"])
    assert set(encoder.vocabulary) == {"a", "b"}
    other: Any = text_encoder_from(saved(encoder.artifact(), tmp_path))
    assert other.vocabulary == encoder.vocabulary
    assert torch.equal(other.encode(["b a"]), encoder.encode(["b a"]))


def saved(artifact: object, folder: Path) -> Any:
    """What a checkpoint gives back."""
    torch.save(artifact, folder / "artifact.pt")
    return torch.load(folder / "artifact.pt", weights_only=True)


def test_an_encoder_is_rebuilt_from_plain_data(tmp_path: Path) -> None:
    data = captioned()
    encoder = text_encoder_from(saved(data.text_encoder.artifact(), tmp_path))
    texts = part(data.test).captions.texts
    assert isinstance(encoder, TextEncoder)
    assert torch.equal(encoder.encode(texts), data.text_encoder.encode(texts))
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    # What another model brings along is not trained again.
    other = captioned(seed=1)
    other.embed_with(encoder)
    assert torch.equal(part(other.test).embeddings, encoder.encode(part(other.test).captions.texts))  # type: ignore[arg-type]


def test_only_known_encoders_are_rebuilt() -> None:
    encoder = small_encoder()
    encoder.learn_vocabulary(["a three"])
    artifact = encoder.artifact()
    for change, problem in (
        ({"kind": "os.system"}, "'os.system' is not a kind of text encoder"),
        ({"options": {"path": "."}}, "damaged"),
        ({"options": {"embedding_dim": -1}}, "embedding_dim is -1"),
        ({"weights": {}}, "damaged"),
        ({"vocabulary": 3}, "damaged"),
    ):
        with pytest.raises(ValueError, match=problem):
            text_encoder_from({**artifact, **change})


def test_the_encoder_learns_to_tell_captions_of_digits_and_colours_apart() -> None:
    data = captioned(
        text_encoder=TextEncoder(embedding_dim=48, word_dim=16, hidden_dim=64),
        encoder_steps=200,
    )
    test, train = part(data.held_out), part(data.train)
    assert train.embeddings is not None
    assert test.embeddings is not None
    first = train.captions.of_image[:, 0]
    # By least squares from the embeddings of captions whose inks are seen, to one hot digits.
    for column, count in ((0, 10), (1, len(INKS))):
        speaks = train.captions.mentions[first, column]
        known = torch.cat([train.embeddings[first][speaks], torch.ones(int(speaks.sum()), 1)], 1)
        one_hot = torch.nn.functional.one_hot(train.attributes[speaks, column], count).float()
        read = torch.linalg.lstsq(known, one_hot).solution
        rows = test.captions.of_image[:, 0]
        speaks = test.captions.mentions[rows, column]
        asked = torch.cat([test.embeddings[rows][speaks], torch.ones(int(speaks.sum()), 1)], 1)
        right = (asked @ read).argmax(1).eq(test.attributes[speaks, column]).float().mean()
        assert right > 0.9


def test_a_trained_encoder_is_kept_and_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(5)
    first = captioned()
    drawn = torch.rand(3)
    (file,) = (tmp_path / "cache").iterdir()
    trained = []
    train = captions_module.train_text_encoder
    monkeypatch.setattr(
        captions_module,
        "train_text_encoder",
        lambda *arguments: (trained.append(1), train(*arguments)),
    )
    torch.manual_seed(5)
    again = captioned()
    assert not trained
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(part(first.train).embeddings, part(again.train).embeddings)  # type: ignore[arg-type]
    # Another seed, encoder, length of training or training set is another encoder.
    others = ({"seed": 1}, {"encoder_steps": 3}, {"train_size": 900})
    for count, options in enumerate(others, 1):
        captioned(**options)
        assert len(trained) == count
    assert len(list((tmp_path / "cache").iterdir())) == 4

    for damage in (with_a_bit_flipped, halved):
        caplog.clear()
        file.write_bytes(damage(file.read_bytes()))
        restored = captioned()
        assert "damaged" in caplog.text
    assert torch.equal(part(first.train).embeddings, part(restored.train).embeddings)  # type: ignore[arg-type]
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("GAN_ZOO_CACHE_DIR", str(blocked / "cache"))
    captioned()
    assert "could not be kept" in caplog.text


def test_a_sentence_transformers_model_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SentenceTransformer:
        def __init__(self, path: str, device: str, local_files_only: bool) -> None:
            assert local_files_only

        def encode(self, texts: object, show_progress_bar: bool, **_: object) -> torch.Tensor:
            if isinstance(texts, str):
                return torch.zeros(3)
            return torch.tensor([[len(text), text.count("e"), 1] for text in texts])  # type: ignore[attr-defined]

    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match="pip install sentence-transformers"):
        SentenceTransformerEncoder(tmp_path, 3)
    package = type("package", (), {"SentenceTransformer": SentenceTransformer})
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", package)
    with pytest.raises(ValueError, match="gone'; it has to be the folder"):
        SentenceTransformerEncoder(tmp_path / "gone", 3)
    with pytest.raises(ValueError, match="embedding_dim is 384; it has to be 3"):
        SentenceTransformerEncoder(tmp_path, 384)
    data = captioned(text_encoder=SentenceTransformerEncoder(tmp_path, 3))
    train = part(data.train)
    batch = train.__getitems__([0, 1])
    assert batch.caption.shape == (2, 3)
    assert not list(data.text_encoder.parameters())
    assert batch.caption[0, 0] in [len(text) for text in train.texts(0)]
    artifact = saved(data.text_encoder.artifact(), tmp_path)
    assert artifact == {
        "kind": "sentence_transformers", "options": {"path": str(tmp_path), "embedding_dim": 3},
    }  # fmt: skip
    encoder = text_encoder_from(artifact, ["sentence_transformers"])
    assert torch.equal(encoder.encode(["three"]), torch.tensor([[5.0, 2, 1]]))


def test_each_caption_is_written_once() -> None:
    attributes = torch.tensor([[3, 0, 1, 2, 0, 1], [3, 0, 5, 2, 2, 2], [3, 5, 1, 2, 0, 1]])
    captions = written(attributes, torch.tensor([[4, 0], [4, 0], [4, 1]]))
    assert sorted(captions.texts) == [
        "a large thick red three leaning to the right, on a grey ground",
        "a middle-sized thick red three leaning to the left, on a dark blue ground",
        "a thick blue three",
        "a thick red three",
        "dark blue background, blue three, bold strokes, tilted to the left, middle-sized",
    ]
    assert captions.of_image[0, 0] == captions.of_image[1, 0]
    ones = dict.fromkeys(ATTRIBUTES, 1)
    assert PARAPHRASES[4].of(ones) == "a regular orange one"
    assert PARAPHRASES[7].of(ones) == (
        "on a dark blue ground stands an orange one, regular and middle-sized"
    )


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"channels": 1}, "^channels is 1; it has to be 3"),
        ({"name": "kmnist"}, "^name is kmnist; it has to be mnist or digits"),
        ({"train_size": 0}, "^train_size is 0"),
        ({"train_size": 20}, "20 training images"),
        ({"captions_averaged": 5}, "captions_averaged is 5; each image has 4"),
        ({"encoder_steps": 0}, "^encoder_steps is 0"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, int], culprit: str) -> None:
    with pytest.raises(ValueError, match=culprit):
        captioned(**options)


def write_pictures(root: Path, layout: str, count: int = 3, kinds: int = 4) -> None:
    """Pictures of one colour a class, with captions, laid out as CUB, Oxford flowers or flat."""
    for kind in range(kinds):
        for number in range(count):
            name = f"picture_{kind}_{number}"
            folder = {"cub": f"{kind:03d}.kind", "oxford": f"class_{kind}", "flat": ""}[layout]
            image = root / "images" / ("" if layout == "oxford" else folder) / f"{name}.png"
            text = root / "text" / folder / f"{name}.txt"
            for path in (image, text):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30, 20), (60 * kind, 0, 0)).save(image)
            second = f"number {number} is this\n" * (number % 2)
            text.write_text(f"a picture of kind {kind}\n{second}\n  ", encoding="utf-8")


def folder(root: Path, **options: object) -> CaptionFolderDataModule:
    data = CaptionFolderDataModule(
        **{
            "root": root,
            "text_encoder": small_encoder(),
            "encoder_steps": 2,
            "batch_size": 2,
            "image_size": 16,
            **options,
        }
    )
    data.setup()
    return data


@pytest.mark.parametrize("layout", ["cub", "oxford", "flat"])
def test_pictures_with_captions(tmp_path: Path, layout: str) -> None:
    write_pictures(tmp_path, layout)
    data = folder(tmp_path, test_share=0.5, val_size=2)
    train, test = part(data.train), part(data.test)
    assert (len(train), len(part(data.val)), len(test)) == (4, 2, 6)
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (2, 3, 16, 16)
    classes = {
        name: set(part(dataset).labels.tolist())
        for name, dataset in (("train", train), ("val", data.val), ("test", test))
    }
    assert not (classes["train"] | classes["val"]) & classes["test"]
    for dataset in (train, test):
        red = (dataset.image(torch.arange(len(dataset)))[:, 0, 8, 8] + 1) * 127.5
        for index in range(len(dataset)):
            kind = round(red[index].item() / 60)
            assert dataset.texts(index)[0] == f"a picture of kind {kind}"


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ("001.kind\n003.kind\n", 6),
        ("001.kind/picture_1_0\n\npicture_2_1.png", 2),
        ("picture_2_1\n001.kind", 4),
    ],
)
def test_a_list_names_the_test_set(tmp_path: Path, lines: str, count: int) -> None:
    write_pictures(tmp_path, "cub")
    (tmp_path / "test.txt").write_text(lines)
    data = folder(tmp_path, test_list="test.txt")
    assert len(part(data.test)) == count
    assert len(part(data.train)) == 12 - count
    again = folder(tmp_path, test_list=tmp_path / "test.txt")
    assert torch.equal(part(again.test).labels, part(data.test).labels)


def test_folder_errors_name_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="no folder 'images'"):
        folder(tmp_path)
    write_pictures(tmp_path, "cub")
    with pytest.raises(ValueError, match="no folder 'text_c10'"):
        folder(tmp_path, caption_folder="text_c10")
    with pytest.raises(ValueError, match="test_share is 1"):
        folder(tmp_path, test_share=1)
    with pytest.raises(ValueError, match=r"test_list='gone.txt' is not a file"):
        folder(tmp_path, test_list="gone.txt")
    (tmp_path / "test.txt").write_text("009.kind")
    with pytest.raises(ValueError, match=r"names '009\.kind'"):
        folder(tmp_path, test_list="test.txt")
    text = tmp_path / "text" / "000.kind"
    for name, content, problem in (
        ("nothing.txt", b"a picture", "describes no picture"),
        ("picture_0_1.txt", b" \n", "holds no caption"),
    ):
        before = (text / name).read_bytes() if (text / name).exists() else None
        (text / name).write_bytes(content)
        with pytest.raises(ValueError, match=problem):
            folder(tmp_path)
        (text / name).write_bytes(before) if before else (text / name).unlink()
    (text / "nothing.txt").write_text("a picture")
    (text / "picture_0_1.txt").write_text("")
    data = folder(tmp_path, when_broken="skip", test_share=0)
    assert data.test is None
    assert len(part(data.train)) == 11
    assert "nothing.txt' describes no picture" in caplog.text
    assert "1 pictures in" in caplog.text
    (text / "nothing.txt").unlink()
    (text / "picture_0_1.txt").write_text("a caption")
    for name in ("000.kind", "001.kind"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name / "twin.png")
    (tmp_path / "text" / "twin.txt").write_text("one of two")
    with pytest.raises(ValueError, match=r"000\.kind/twin\.png' or '.*001\.kind/twin\.png"):
        folder(tmp_path, when_broken="stop", test_share=0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfea\x00", r"picture_0_0\.txt' is not a text file in UTF-8"),
        ("a caption\nun carré".encode("latin-1"), r"picture_0_0\.txt' is not a text file in UTF-8"),
        (
            b"a caption\n\n" + b"word " * 440_000,
            r"line 3 of '.*picture_0_0\.txt' has 2,199,999 char",
        ),
    ],
    ids=["bytes", "latin-1", "long"],
)
def test_a_text_file_that_holds_no_captions_is_named_or_skipped(
    content: bytes, problem: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path, "cub")
    (tmp_path / "text" / "000.kind" / "picture_0_0.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"(?i){problem}.*dataset\.when_broken=skip"):
        folder(tmp_path)
    data = folder(tmp_path, when_broken="skip", test_share=0)
    assert len(part(data.train)) == 11
    assert re.search(f"(?i)left out: .*{problem}", caplog.text)


def test_a_text_file_may_begin_with_the_mark_of_its_encoding(tmp_path: Path) -> None:
    write_pictures(tmp_path, "flat", count=1)
    (tmp_path / "text" / "picture_0_0.txt").write_text("a square", encoding="utf-8-sig")
    (tmp_path / "test.txt").write_text("picture_0_0", encoding="utf-8-sig")
    data = folder(tmp_path, test_list="test.txt", val_size=0)
    assert part(data.test).texts(0) == ["a square"]

"""The family of text-to-image models: captions in, images at several scales out."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.data.base import BatchSource, ImageBatch
from gan_zoo.data.captions import CaptionBatch, CaptionDataModule
from gan_zoo.losses import AdversarialLoss, adversarial_loss, kl_from_standard_normal
from gan_zoo.models.noise_to_image import Noise, NoiseToImage, normal, spherical, uniform_bounds
from gan_zoo.models.passes import in_chunks
from gan_zoo.models.protocols import CHUNK, Generated
from gan_zoo.networks.text import text_encoder_from, words_of
from gan_zoo.networks.text_to_image import ScaleImages, TextDiscriminator
from gan_zoo.plotting import captioned, side_by_side, stacked
from gan_zoo.randomness import some_rows
from gan_zoo.ranges import Count, NonNegative, UnfitArgument, checked
from gan_zoo.training.module import Loss

log = logging.getLogger(__name__)

_EXAMPLES, _EXAMPLE_COLUMNS = 16, 4


class TextToImage(NoiseToImage):
    """NoiseToImage with captions: conditioning augmentation, grids of captions.

    The noise vector holds z and the standard normal values of conditioning augmentation, so that
    one vector and one caption are one image. The frozen text encoder is the data module's;
    checkpoints hold it, and some captions that are drawn by default.

    Logged: ``d_real``, ``d_wrong`` and ``d_fake``, of real images with their captions, real images
    with captions of another class, and generated ones with theirs; ``kl`` in nats.

    Args:
        embedding_dim: length of the captions' embeddings; None for a model without text.
        condition_dim: length of the condition c (N_g of StackGAN).
        conditioning_augmentation: False takes the caption's condition as it is, without noise.
        augmentations: how many conditions the generators draw.
        lambda_kl: weight of the KL divergence of the conditions' distribution from N(0, I), in
            nats.
        mixed_pairs: right, wrong and generated pairs of image and caption pass the discriminator's
            joint layer as one batch; False: each kind as one of its own, as in the authors' code.
            With batch norm in that layer, a discriminator then tells wrong pairs by their batch
            (docs/results.md, Wrong pairs).
        loss: a name in gan_zoo.losses.ADVERSARIAL_LOSSES, or an AdversarialLoss.
        noise: by default standard normal.
        args, options: NoiseToImage's, but ``num_classes``.
    """

    batch_types: ClassVar[tuple[type, ...]] = (CaptionBatch,)

    @checked
    def __init__(
        self,
        *args: Any,
        embedding_dim: Count | None,
        condition_dim: Count = 32,
        conditioning_augmentation: bool = True,
        augmentations: Count = 1,
        lambda_kl: NonNegative = 1.0,
        mixed_pairs: bool = False,
        loss: str | AdversarialLoss = "non_saturating",
        noise: Noise = normal,
        **options: Any,
    ) -> None:
        super().__init__(*args, noise=noise, **options)
        self.has_text = embedding_dim is not None
        augmented = self.has_text and conditioning_augmentation
        self.augmentation_dim = augmentations * condition_dim * augmented
        self.lambda_kl = lambda_kl
        self.mixed_pairs = mixed_pairs
        self.adversarial = adversarial_loss(loss)
        # In a tuple, so that it is no part of the trained module.
        self._text_encoder: tuple[Any, ...] = ()
        self.captions: list[str] = []
        self.caption_rows: list[list[str]] = []

    def generators(self, ema: bool = True) -> list[nn.Module]:
        """The networks that ``images_of`` takes, their moving averages where asked for."""
        return [self.network("generator", ema)]

    def images_of(
        self, generators: Sequence[nn.Module], noise: Tensor, caption: Tensor | None
    ) -> ScaleImages:
        """All scales' images of noise and caption embeddings, the coarsest first."""
        raise NotImplementedError

    def judges(self) -> list[TextDiscriminator]:
        """The discriminators that take part in the coming iteration, the coarsest first."""
        raise NotImplementedError

    def trained_judges(self) -> list[TextDiscriminator]:
        """The discriminators that took part in the last iteration, the coarsest first."""
        return self.judges()

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, latent_dim + the augmentations' values); ``generator`` as NoiseToImage's."""
        latent = super().draw_noise(n, generator)
        device = self.device if generator is None else generator.device
        eps = torch.randn(n, self.augmentation_dim, generator=generator, device=device)
        return torch.cat([latent, eps.to(self.device)], 1)

    def kl(self, drawn: ScaleImages) -> tuple[Tensor | float, dict[str, Tensor]]:
        """lambda_kl times the KL divergence of the conditions, and the divergence as a term."""
        if drawn.mean is None or drawn.log_variance is None:
            return 0.0, {}
        divergence = kl_from_standard_normal(drawn.mean, drawn.log_variance)
        return self.lambda_kl * divergence.mean(), {"kl": divergence}

    def pair_logits(
        self, discriminator: TextDiscriminator, real: Tensor, fake: Tensor, batch: CaptionBatch
    ) -> tuple[Tensor, ...]:
        """Logits of the right, the wrong and the generated pairs of image and caption.

        Right pairs are the batch's images with their captions, wrong ones the same images with
        captions of another class, generated ones generated images with the batch's captions.
        ``real`` and ``fake`` are the discriminator's features of both kinds of image.
        """
        images = (real, real, fake)
        captions = (batch.caption, batch.wrong_caption, batch.caption)
        if self.mixed_pairs:
            return discriminator.fits(torch.cat(images), torch.cat(captions)).chunk(3)
        return tuple(discriminator.fits(*pair) for pair in zip(images, captions, strict=True))

    def matching(
        self,
        discriminator: TextDiscriminator,
        real: Tensor,
        fake: Tensor,
        batch: CaptionBatch,
        weight: float,
    ) -> Loss:
        """The matching-aware discriminator's objective, and what it says, as terms.

        Right pairs against wrong and generated ones, of that weight each; the arguments are those
        of ``pair_logits``.
        """
        right, wrong, drawn = self.pair_logits(discriminator, real, fake, batch)
        wrongs = self.adversarial.fake(wrong) + self.adversarial.fake(drawn)
        loss = self.adversarial.real(right) + weight * wrongs
        with torch.no_grad():
            outputs = [self.adversarial.output(logits) for logits in (right, wrong, drawn)]
        return loss, dict(zip(("d_real", "d_wrong", "d_fake"), outputs, strict=True))

    def generated_logits(
        self, discriminator: TextDiscriminator, fake: Tensor, batch: CaptionBatch
    ) -> Tensor:
        """Logits of the generated pairs in the generator's step, of these features of images."""
        if not self.mixed_pairs:
            return discriminator.fits(fake, batch.caption)
        with torch.no_grad():
            real = discriminator.features(batch.image)
        return self.pair_logits(discriminator, real, fake, batch)[2]

    @property
    def text_encoder(self) -> Any:
        """What encodes captions; None before the data module's has been taken, or without text."""
        return self._text_encoder[0] if self._text_encoder else None

    def encode(self, captions: Sequence[str]) -> Tensor:
        """The captions' embeddings (N, E), on the model's device; ValueError for an unknown one."""
        if self.text_encoder is None:
            raise ValueError(
                f"This {type(self).__name__} has no text encoder: it was trained without text, or "
                "on embeddings alone."
            )
        rows = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
        order = torch.tensor([rows[caption] for caption in captions])
        return self.text_encoder.encode(list(rows))[order].to(self.device)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        data: Any = getattr(self.trainer, "datamodule", None)
        if not self.has_text or not isinstance(data, CaptionDataModule):
            return
        encoder: Any = data.text_encoder
        if self.text_encoder is None:
            self._text_encoder = (encoder,)
        elif not _equal(self.text_encoder.artifact(), encoder.artifact()):
            # The networks were trained on the embeddings of their own encoder.
            data.embed_with(self.text_encoder)
        self.captions = data.example_captions
        self.caption_rows = data.caption_rows

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["text"] = {
            "encoder": self.text_encoder and self.text_encoder.artifact(),
            "captions": self.captions,
            "caption_rows": self.caption_rows,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._take_text(checkpoint)

    def begin_with(self, checkpoint: Mapping[str, Any]) -> None:
        super().begin_with(checkpoint)
        self._take_text(checkpoint)

    def _take_text(self, checkpoint: Mapping[str, Any]) -> None:
        text = checkpoint.get("text", {})
        if text.get("encoder") is not None:
            self._text_encoder = (text_encoder_from(text["encoder"], self.trust),)
        self.captions = list(text.get("captions", ()))
        self.caption_rows = [list(row) for row in text.get("caption_rows", ())]

    def certainty(self, terms: Mapping[str, float]) -> float | None:
        return self.adversarial.certainty(terms)

    def validation_step(self, batch: CaptionBatch | ImageBatch, batch_idx: int) -> None:
        """D on held-out real images, with their captions, if the data has captions."""
        outputs = []
        for judge in self.trained_judges():
            features = judge.features(batch.image)
            if isinstance(batch, CaptionBatch):
                logits = judge.fits(features, batch.caption)
            else:
                logits = judge.real(features)
            outputs.append(self.adversarial.output(logits).mean())
        value = torch.stack(outputs).mean()
        self.log("val/d_real", value, batch_size=len(batch.image), sync_dist=True)

    def sample(  # type: ignore[override]
        self,
        n: int,
        *,
        noise: Tensor | None = None,
        captions: Sequence[str] | Tensor | None = None,
        generator: torch.Generator | None = None,
        ema: bool = True,
        all_scales: bool = False,
        chunk_size: int = 250,
    ) -> Tensor:
        """As NoiseToImage's, of captions.

        Args:
            captions: n of them, or their embeddings (n, E); by default the model's example
                captions, repeated up to n.
            all_scales: give every scale's images, the coarser ones enlarged to the finest's size.

        Returns:
            (n, C, H, W) in [-1, 1], or (n, scales, C, H, W), on the model's device.
        """
        noise = self.draw_noise(n, generator) if noise is None else noise.to(self.device)
        if captions is None and not self.has_text:
            caption = torch.empty(n, 0, device=self.device)
        else:
            if captions is None:
                captions = self._default_captions(n)
            caption = self._embedded(captions)
        if len(caption) != n:
            raise ValueError(f"{n} images are asked for, and {len(caption)} captions given.")
        networks = self.generators(ema)

        def images(noise: Tensor, caption: Tensor) -> Tensor:
            drawn = self.images_of(networks, noise, caption).images
            if not all_scales:
                return drawn[-1]
            side = drawn[-1].shape[-1]
            enlarged = [F.interpolate(image, size=side) for image in drawn]
            return torch.stack(enlarged, 1)

        return in_chunks(networks, images, (noise, caption.to(self.device)), chunk_size)

    def sample_inputs(
        self, asked: Mapping[str, Sequence[Any]], n: int | None, generator: torch.Generator
    ) -> dict[str, Any]:
        """As NoiseToImage's, with ``captions``: a sentence or several, which are repeated up to n.

        A caption of which the model knows no word is a ValueError; single unknown words are warned
        of.
        """
        if not self.has_text:
            return super().sample_inputs(asked, n, generator)
        rest = {name: values for name, values in asked.items() if name != "captions"}
        captions = asked.get("captions")
        if isinstance(captions, str):
            captions = [captions]
        if captions is not None:
            self._check(captions)
            n = n or len(captions)
        inputs = super().sample_inputs(rest, n, generator)
        n = len(inputs["noise"])
        chosen = captions or self._default_captions(n)
        return inputs | {"captions": [chosen[i % len(chosen)] for i in range(n)]}

    def between(
        self, start: Mapping[str, Any], end: Mapping[str, Any], share: float
    ) -> dict[str, Any]:
        """As NoiseToImage's; captions, or their embeddings, go straight."""
        inputs = super().between(start, end, share)
        if "captions" in start:
            first, last = (self._embedded(x["captions"]) for x in (start, end))
            inputs["captions"] = torch.lerp(first, last, share)
        return inputs

    def _noise_between(self, start: Tensor, end: Tensor, share: float) -> Tensor:
        if uniform_bounds(self.noise) is None:
            return super()._noise_between(start, end, share)
        # Conditioning augmentation's values are normal, whatever the noise is.
        (z_start, eps_start), (z_end, eps_end) = (
            x.tensor_split([self.latent_dim], 1) for x in (start, end)
        )
        z = super()._noise_between(z_start, z_end, share)
        return torch.cat((z, spherical(eps_start, eps_end, share)), 1)

    def _embedded(self, captions: Sequence[str] | Tensor) -> Tensor:
        return captions if isinstance(captions, Tensor) else self.encode(captions)

    def generated_images(
        self, n: int, source: BatchSource, generator: torch.Generator, ema: bool = True
    ) -> Iterator[dict[str, Generated]]:
        """As NoiseToImage's; the images are of some of the source's captions, or of all in turn.

        The classes that are asked for are those of the captions' images.
        """
        if not self.has_text:
            yield from super().generated_images(n, source, generator, ema)
            return
        some = some_rows(len(source), n)
        rows = some[torch.arange(n) % len(some)]
        noise = self.draw_noise(n, generator)
        for part, chosen in zip(noise.split(CHUNK), rows.split(CHUNK), strict=True):
            batch = source.__getitems__(chosen.tolist())
            images = self.sample(len(part), noise=part, captions=batch.caption, ema=ema)
            yield self.by_domain(images, batch.label)

    def real_images(self, batch: ImageBatch | CaptionBatch) -> dict[str, Generated]:
        if not self.has_text:
            return super().real_images(batch)
        return self.by_domain(batch.image, batch.label)

    def _check(self, captions: Sequence[Any]) -> None:
        if not captions or not all(isinstance(caption, str) for caption in captions):
            raise UnfitArgument(
                "captions",
                f'is {captions}: give sentences, such as captions=["a thin green seven"].',
            )
        vocabulary = getattr(self.text_encoder, "vocabulary", None)
        if not vocabulary:
            return
        for caption in captions:
            words = words_of(caption)
            unknown = [word for word in words if word not in vocabulary]
            near = {word: get_close_matches(word, vocabulary, n=1) for word in unknown}
            said = ", ".join(f"'{w}'" + (f" ({n[0]}?)" if n else "") for w, n in near.items())
            if len(unknown) == len(words):
                raise ValueError(
                    f"The caption '{caption}' has no word that this checkpoint knows"
                    f"{': ' + said if said else ''}. It was trained on captions such as "
                    f"'{self.captions[0] if self.captions else ''}'."
                )
            if unknown:
                log.warning("Left out of '%s', as it was not trained on: %s", caption, said)

    def _default_captions(self, n: int) -> list[str]:
        if not self.captions:
            raise ValueError("This model has no example captions yet: captions have to be given.")
        return [self.captions[i % len(self.captions)] for i in range(n)]

    def grid_inputs(self, generator: torch.Generator, examples: Any) -> dict[str, Tensor]:
        """Noise: a vector for each example caption, the first one for the rows too."""
        return {"noise": self.draw_noise(_EXAMPLES, generator)}

    def sample_grid(self, inputs: dict[str, Any]) -> tuple[Tensor, int]:
        """Example captions, each over its image at all scales; below, rows with a word changed.

        Within such a row the noise is the same. Without text there are images at all scales alone.
        """
        noise = inputs["noise"].to(self.device)
        if not self.has_text:
            return side_by_side(self.sample(len(noise), noise=noise, all_scales=True)), 4
        captions = self._default_captions(len(noise))
        sets = self.sample(len(noise), noise=noise, captions=captions, all_scales=True)
        pictures = [captioned(side_by_side(sets), captions, _EXAMPLE_COLUMNS)]
        for row in self.caption_rows:
            images = self.sample(len(row), noise=noise[:1].expand(len(row), -1), captions=row)
            pictures.append(captioned(images, row, len(row), common=True))
        return stacked(pictures), 1

    def real_grid(self, examples: ImageBatch | CaptionBatch) -> tuple[Tensor, int]:
        if not self.has_text:
            return super().real_grid(cast(ImageBatch, examples))
        images = examples.image[:_EXAMPLES]
        return captioned(images, self._default_captions(len(images)), _EXAMPLE_COLUMNS), 1


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b

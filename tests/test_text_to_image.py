"""StackGAN and StackGAN++: what the stages and scales are given, train and leave alone."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_zoo.data import CaptionBatch, ImageBatch, MNISTCaptionsDataModule
from gan_zoo.losses import colour_consistency, joint_embedding, kl_from_standard_normal
from gan_zoo.models import StackGAN, StackGANPP
from gan_zoo.networks.layers import scale_sizes
from gan_zoo.networks.stackgan import StageOneGenerator, StageTwoGenerator
from gan_zoo.networks.stackgan_pp import TreeDiscriminators, TreeGenerator
from gan_zoo.networks.text import TextEncoder
from gan_zoo.networks.text_to_image import ConditioningAugmentation, TextDiscriminator
from gan_zoo.plotting import captioned, side_by_side, stacked
from tests.conftest import fit, small

E, C, Z = 6, 4, 3


def encoder() -> TextEncoder:
    return TextEncoder(embedding_dim=E, max_words=100, word_dim=4, hidden_dim=4)


def stackgan(augment: bool = True, **options: Any) -> StackGAN:
    sizes = {"channels": 3, "image_size": 16, "base_channels": 2}
    text = {"embedding_dim": E, "condition_dim": C, "factor": 2, "augment": augment}
    torch.manual_seed(0)
    judge = functools.partial(TextDiscriminator, embedding_dim=E, text_dim=2, **sizes)
    model: StackGAN = small(
        StackGAN,
        **{
            "generator": StageOneGenerator(latent_dim=Z, **text, **sizes),
            "discriminator": judge(factor=2),
            "generator_2": StageTwoGenerator(residual_blocks=1, **text, **sizes),
            "discriminator_2": judge(),
            "embedding_dim": E,
            "condition_dim": C,
            "conditioning_augmentation": augment,
            "latent_dim": Z,
            "noise": nn.init.normal_,
            **options,
        },
    )
    return model


def tree(text: bool = True, num_scales: int = 2, channels: int = 3, **options: Any) -> StackGANPP:
    embedding_dim = E if text else None
    torch.manual_seed(0)
    judge = functools.partial(
        TextDiscriminator, channels, embedding_dim=embedding_dim, base_channels=2, text_dim=2,
        unconditional=True, joint_kernel_size=3, orthogonal=True,
    )  # fmt: skip
    model: StackGANPP = small(
        StackGANPP,
        **{
            "generator": TreeGenerator(Z, embedding_dim, C, channels, 16, num_scales, 2, 1),
            "discriminator": TreeDiscriminators(judge, 16, num_scales),
            "embedding_dim": embedding_dim,
            "condition_dim": C,
            "latent_dim": Z,
            "noise": nn.init.normal_,
            **options,
        },
    )
    return model


def batch(n: int = 4) -> CaptionBatch:
    random = torch.Generator().manual_seed(1)
    image = torch.rand(n, 3, 16, 16, generator=random) * 2 - 1
    caption, wrong = torch.randn(2, n, E, generator=random)
    return CaptionBatch(image, torch.arange(n), caption, wrong)


class Digits(MNISTCaptionsDataModule):
    """The stand-in digits of 16 pixels with captions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **{
                "name": "digits", "text_encoder": encoder(), "encoder_steps": 2, "channels": 3,
                "image_size": 16, "batch_size": 8, "train_size": 200, **options,
            }
        )  # fmt: skip


def train(
    model: pl.LightningModule, data: pl.LightningDataModule, steps: int, **options: Any
) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        **options.pop("trainer", {}),
    )  # fmt: skip
    trainer.fit(model, data, **options)
    return trainer


def test_mixed_pairs_share_their_batch_norm_in_either_players_step() -> None:
    given = batch(4)

    def logits(**options: Any) -> tuple[Tensor, list[Tensor]]:
        """Of generated pairs in the generator's step, and of all three kinds."""
        torch.manual_seed(0)
        model = stackgan(**options)
        judge: Any = model.discriminator
        real, fake = judge.features(given.image), judge.features(given.image.flip(0))
        of_all = model.pair_logits(judge, real, fake, given)
        return model.generated_logits(judge, fake, given), list(of_all)

    alone, (right, wrong, apart) = logits()
    torch.testing.assert_close(alone, apart)
    with_real, (mixed_right, mixed_wrong, mixed) = logits(mixed_pairs=True)
    torch.testing.assert_close(with_real, mixed)
    pairs = ((right, mixed_right), (wrong, mixed_wrong), (apart, mixed))
    # Batch norm shifts and scales each kind in its own way, or all of them in one.
    assert not any(torch.allclose(*pair, atol=1e-3) for pair in pairs)


def states(*modules: nn.Module) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


def equal(before: list[Tensor], after: list[Tensor]) -> list[bool]:
    return [torch.equal(*pair) for pair in zip(before, after, strict=True)]


# Losses


def test_kl_is_torchs_and_0_of_the_standard_normal() -> None:
    zero = torch.zeros(3, 5)
    assert kl_from_standard_normal(zero, zero).tolist() == [0, 0, 0]
    mean, log_variance = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    given = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(given, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_from_standard_normal(mean, log_variance), expected.sum(1))


def test_the_joint_embedding_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    captions = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    # Scores: [[3, 0, .5], [0, 2, 1], [3, 1, 1]].
    describes = torch.eye(3, dtype=torch.bool)
    by_image = (0 + 0) + (0 + 0) + (3 + 1)
    by_caption = (0 + 1) + (0 + 0) + (0.5 + 1)
    loss = joint_embedding(images, captions, describes).item()
    assert loss == pytest.approx((by_image + by_caption) / 6)
    # The first caption is true of the third image: neither counts against the other.
    describes[2, 0] = True
    loss = joint_embedding(images, captions, describes).item()
    assert loss == pytest.approx((1 + 1.5) / 5)


def test_the_colour_term_by_hand() -> None:
    finer = torch.zeros(1, 2, 2, 2)
    finer[0, 0] = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    finer[0, 1] = 0.5
    coarser = torch.zeros(1, 2, 1, 1)
    # Means (0, .5) and (0, 0); covariances diag(1, 0) and 0.
    assert colour_consistency(finer, coarser).item() == pytest.approx(0.25 + 5)
    assert colour_consistency(finer, coarser, 2.0, 0.0).item() == pytest.approx(0.5)
    finer[0, 1] = finer[0, 0]
    # Both off-diagonal elements count.
    assert colour_consistency(finer, coarser, 1.0, 1.0).item() == pytest.approx(4)


def test_the_colour_term_is_0_for_a_downscaling_of_equal_statistics() -> None:
    coarser = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    finer = F.interpolate(coarser, scale_factor=2)
    assert colour_consistency(finer, coarser).item() == pytest.approx(0, abs=1e-12)
    shuffled = finer.flatten(2)[..., torch.randperm(256)].unflatten(2, (16, 16))
    assert colour_consistency(shuffled, coarser).item() == pytest.approx(0, abs=1e-12)
    assert colour_consistency(finer + 0.1, coarser).item() == pytest.approx(0.03, rel=1e-4)


# Networks


def test_conditioning_augmentation() -> None:
    torch.manual_seed(0)
    layer = ConditioningAugmentation(E, C)
    layer.initialise()
    caption, eps = torch.randn(5, E), torch.randn(5, C)
    condition, mean, log_variance = layer(caption, eps)
    assert mean is not None
    assert log_variance is not None
    # It begins with a variance of 1 for any caption.
    assert log_variance.eq(0).all()
    torch.testing.assert_close(condition, mean + eps)
    with torch.no_grad():
        layer.linear.bias[C:] = torch.tensor(4.0).log()
    torch.testing.assert_close(layer(caption, eps)[0], mean + 2 * eps)
    plain = ConditioningAugmentation(E, C, augment=False)
    condition, *distribution = plain(caption, eps)
    assert distribution == [None, None]
    assert torch.equal(condition, plain(caption, 7 * eps)[0])


@pytest.mark.parametrize(("size", "factor"), [(16, 2), (32, 2), (32, 4), (64, 4), (28, 2), (64, 2)])
def test_stages_of_any_size(size: int, factor: int) -> None:
    text = {"embedding_dim": E, "condition_dim": C, "channels": 1, "image_size": size}
    noise, caption = torch.randn(2, Z + C), torch.randn(2, E)
    coarse = StageOneGenerator(Z, **text, factor=factor, base_channels=2)(noise, caption)
    assert coarse.images[0].shape == (2, 1, size // factor, size // factor)
    second = StageTwoGenerator(**text, factor=factor, base_channels=2)
    fine = second(coarse.images[0], noise[:, :C], caption).images[0]
    assert fine.shape == (2, 1, size, size)
    for images, judged in ((coarse.images[0], factor), (fine, 1)):
        judge = TextDiscriminator(1, size, E, judged, 2, 2)
        assert judge.image_size == images.shape[-1]
        assert judge.fits(judge.features(images), caption).shape == (2, 1)
        assert judge.alone is None


@pytest.mark.parametrize(("size", "count"), [(32, 3), (32, 2), (64, 3), (28, 2), (16, 2)])
def test_trees_of_any_size(size: int, count: int) -> None:
    generator = TreeGenerator(Z, E, C, 3, size, count, base_channels=2)
    images = generator(torch.randn(2, Z + C), torch.randn(2, E)).images
    assert [image.shape[-1] for image in images] == scale_sizes(size, count)
    judges = TreeDiscriminators(
        functools.partial(TextDiscriminator, 3, embedding_dim=None, base_channels=2), size, count
    )
    for judge, image in zip(judges, images, strict=True):
        assert judge.real(judge.features(image)).shape == (2, 1)


def test_sizes_that_cannot_be_are_refused() -> None:
    for size, factor in ((16, 3), (16, 4), (16, 1), (30, 4)):
        with pytest.raises(ValueError, match=f"factor is {factor}"):
            StageOneGenerator(Z, E, C, 1, size, factor)
    for size, count in ((28, 3), (16, 3), (32, 1), (30, 3)):
        with pytest.raises(ValueError, match=f"{count} scales up to {size}"):
            scale_sizes(size, count)


def test_the_trees_scales_share_their_trunk() -> None:
    generator = TreeGenerator(Z, E, C, 3, 16, 2, base_channels=2)
    coarse, fine = generator(torch.randn(3, Z + C), torch.randn(3, E)).images
    coarse.sum().backward(retain_graph=True)
    assert generator.trunk[0][0].weight.grad.abs().sum() > 0  # type: ignore[index,union-attr]
    assert generator.trunk[1][0][0].weight.grad is None  # type: ignore[index,union-attr]
    generator.zero_grad()
    fine.sum().backward()
    assert generator.trunk[0][0].weight.grad.abs().sum() > 0  # type: ignore[index,union-attr]
    assert generator.to_image[0][0].weight.grad is None  # type: ignore[index,union-attr]


def test_measured_images_are_of_captions_from_anywhere_in_the_source() -> None:
    class Source:
        def __len__(self) -> int:
            return 20

        def __getitems__(self, rows: list[int]) -> CaptionBatch:
            return CaptionBatch(*(x[rows] for x in batch(20)))

    def labels(n: int) -> list[int]:
        parts = list(tree().generated_images(n, Source(), torch.Generator().manual_seed(0)))
        return torch.cat([part[""].label for part in parts if part[""].label is not None]).tolist()

    assert len(set(labels(6))) == 6
    assert labels(6) == labels(6) != list(range(6))
    assert labels(50) == [n % 20 for n in range(50)]


# StackGAN


@pytest.mark.parametrize("mixed", [False, True])
def test_the_matching_aware_loss_by_hand(mixed: bool) -> None:
    model = stackgan(mixed_pairs=mixed)
    judge: Any = model.discriminator
    given = batch(2)
    # The logit is the first value of the features plus that of the caption.
    judge.features = lambda image: image.mean((1, 2, 3))[:, None]
    judge.fits = lambda features, caption: features + caption[:, :1]
    image = torch.full((2, 3, 8, 8), 0.25)
    fake = model.generate(given)._replace(images=(image,))
    loss, terms = model.discriminator_loss(given, fake)
    real = given.image.mean((1, 2, 3))
    right, wrong = real + given.caption[:, 0], real + given.wrong_caption[:, 0]
    drawn = 0.25 + given.caption[:, 0]
    expected = F.softplus(-right).mean() + 0.5 * (
        F.softplus(wrong).mean() + F.softplus(drawn).mean()
    )
    torch.testing.assert_close(loss, expected)
    for name, logits in (("d_real", right), ("d_wrong", wrong), ("d_fake", drawn)):
        torch.testing.assert_close(terms[name].flatten(), logits.sigmoid())
    mean, log_variance = torch.randn(2, 2, C)
    loss, terms = model.generator_loss(given, fake._replace(mean=mean, log_variance=log_variance))
    divergence = kl_from_standard_normal(mean, log_variance)
    torch.testing.assert_close(terms["kl"], divergence)
    torch.testing.assert_close(loss, F.softplus(-drawn).mean() + divergence.mean())
    lighter = stackgan(lambda_kl=0.5, mixed_pairs=mixed)
    lighter.discriminator = judge
    loss, _ = lighter.generator_loss(given, fake._replace(mean=mean, log_variance=log_variance))
    torch.testing.assert_close(loss, F.softplus(-drawn).mean() + 0.5 * divergence.mean())


class Watch(pl.Callback):
    """Keeps the networks' states after each iteration."""

    def __init__(self) -> None:
        self.seen: list[dict[str, list[Tensor]]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        names = ("generator", "discriminator", "generator_2", "discriminator_2")
        networks = {name: getattr(pl_module, name) for name in names}
        networks |= {f"ema {name}": network for name, network in pl_module.ema.items()}
        self.seen.append(
            {
                name: [*states_of(network.parameters()), *states_of(network.buffers())]
                for name, network in networks.items()
            }
        )


def states_of(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def test_stages_are_trained_in_turn_and_stage_two_leaves_stage_one_untouched(
    tmp_path: Path,
) -> None:
    watch = Watch()
    scheduler = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    model = stackgan(stage_one_share=0.6, ema_decay=0.9, scheduler=scheduler)
    trainer = train(model, Digits(), 5, trainer={"callbacks": [watch]})
    assert model.stage_one_steps == 3
    first, second = ("generator", "discriminator"), ("generator_2", "discriminator_2")
    for step in range(1, 5):
        before, after = watch.seen[step - 1], watch.seen[step]
        trained, still = (first, second) if step < 3 else (second, first)
        for name in (*still, f"ema {still[0]}"):
            assert all(equal(before[name], after[name])), (step, name)
        for name in (*trained, f"ema {trained[0]}"):
            assert not all(equal(before[name], after[name])), (step, name)
    steps = {name: count for name, count in model.counts.items() if name.endswith("_steps")}
    assert steps == {"d_steps": 3, "g_steps": 3, "d_2_steps": 2, "g_2_steps": 2}
    # Either stage's rates begin anew.
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == pytest.approx([0.05 / 8] * 2 + [0.05 / 4] * 2)


def test_stage_two_is_given_what_stage_one_draws_when_sampled() -> None:
    model = stackgan(ema_decay=0.5)
    model.trained_stage.fill_(2)
    # An average that differs from the weights is what samples come from.
    with torch.no_grad():
        for parameter in model.ema["generator"].parameters():
            parameter.add_(0.1)
    seen: list[Tensor] = []
    for network in (model.generator_2, model.ema["generator_2"]):
        network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    given = batch()
    noise = model.draw_noise(4)
    model.draw_noise = lambda n, generator=None: noise  # type: ignore[method-assign]
    model.stage_one_steps = 0
    model._trainer = type("Trainer", (), {"global_step": 0})()  # type: ignore[assignment]
    model.train()
    model.generate(given)
    model.sample(4, noise=noise, captions=given.caption)
    torch.testing.assert_close(*seen)
    assert not seen[0].requires_grad
    assert model.ema["generator"].training


def test_what_is_drawn_depends_on_noise_caption_and_stage() -> None:
    model = stackgan()
    given = batch()
    noise = model.draw_noise(4, torch.Generator().manual_seed(0))
    assert noise.shape == (4, Z + 2 * C)
    assert stackgan(augment=False).draw_noise(4).shape == (4, Z)
    stage_one = model.sample(4, noise=noise, captions=given.caption)
    assert stage_one.shape == (4, 3, 8, 8)
    model.trained_stage.fill_(2)
    both = model.sample(4, noise=noise, captions=given.caption, all_scales=True)
    assert both.shape == (4, 2, 3, 16, 16)
    torch.testing.assert_close(both[:, 0, :, ::2, ::2], stage_one)
    fine = model.sample(4, noise=noise, captions=given.caption, chunk_size=3)
    torch.testing.assert_close(both[:, 1], fine)
    # Each part of the noise has its own place: z, Stage I's condition, Stage II's.
    for part, changes_stage_one in ((0, True), (Z, True), (Z + C, False)):
        other = noise.clone()
        other[:, part] += 1
        changed = model.sample(4, noise=other, captions=given.caption, all_scales=True)
        assert (not torch.equal(changed[:, 0], both[:, 0])) == changes_stage_one
        assert not torch.equal(changed[:, 1], both[:, 1])
    reread = model.sample(4, noise=noise, captions=given.wrong_caption, all_scales=True)
    assert not torch.equal(reread, both)
    with pytest.raises(ValueError, match="4 images are asked for, and 3 captions"):
        model.sample(4, captions=given.caption[:3])


def test_between_two_uniform_noises_augmentation_stays_normal() -> None:
    model = stackgan(noise=functools.partial(nn.init.uniform_, a=-1.0, b=1.0))
    ends = [{"noise": model.draw_noise(2000)} for _ in range(2)]
    first, met = (model.between(*ends, share)["noise"] for share in (0.0, 0.5))
    torch.testing.assert_close(first, ends[0]["noise"], atol=1e-4, rtol=0)
    latent, augmentation = met.tensor_split([Z], 1)
    assert latent.abs().max() <= 1
    assert augmentation.abs().max() > 1


@pytest.mark.parametrize("interrupted", [2, 5])
def test_a_run_resumes_in_either_stage(tmp_path: Path, interrupted: int) -> None:
    data = Digits()
    model = stackgan(stage_one_share=0.5)
    trainer = train(model, data, 8, trainer={"limit_train_batches": interrupted, "max_epochs": 1})
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    stage_one = states(model.generator)
    again = stackgan(stage_one_share=0.5)
    # With more iterations than were planned the boundary stays.
    train(again, Digits(), 12, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert again.stage_one_steps == 4
    assert again.counts["g_steps"] == 4
    assert again.counts["g_2_steps"] == 8
    assert all(equal(stage_one, states(again.generator))) == (interrupted == 5)
    assert int(again.trained_stage) == 2


def test_stages_alone(tmp_path: Path) -> None:
    data = Digits()
    first = stackgan(stage_one_share=1.0)
    train(first, data, 3)
    assert int(first.trained_stage) == 1
    assert first.trained_judges() == [first.discriminator]
    assert "g_2_steps" not in first.counts
    with pytest.raises(ValueError, match="init_from"):
        train(stackgan(stage_one_share=0.0), data, 3)
    second = stackgan(stage_one_share=0.0)
    second.load_state_dict(first.state_dict())
    train(second, data, 3)
    assert second.counts["g_2_steps"] == 3
    assert second.trained_judges() == [second.discriminator_2]
    assert all(equal(states(first.generator), states(second.generator)))
    endless = {"max_time": {"seconds": 0}}
    with pytest.raises(ValueError, match="max_steps=-1"):
        train(stackgan(), data, -1, trainer=endless)
    train(stackgan(stage_one_share=1.0), data, -1, trainer=endless)


def test_without_augmentation_there_is_no_divergence() -> None:
    model = stackgan(augment=False)
    given = batch()
    drawn = model.generate(given)
    assert drawn.mean is None
    assert "kl" not in model.generator_loss(given, drawn)[1]


# StackGAN++


def test_the_trees_losses_by_hand() -> None:
    model = tree(lambda_kl=2.0, lambda_colour=3.0)
    given = batch(2)
    for index, judge in enumerate(model.discriminator):  # type: ignore[arg-type]
        judge.features = lambda image: image.mean((1, 2, 3))[:, None]
        judge.real = lambda features, index=index: features + index
        judge.fits = lambda features, caption, index=index: features + caption[:, :1] + index
    images = (torch.full((2, 3, 8, 8), 0.25), torch.full((2, 3, 16, 16), -0.5))
    drawn = model.generate(given)._replace(images=images)
    real = given.image.mean((1, 2, 3))
    d_loss = g_loss = torch.zeros(())
    for index, value in enumerate((0.25, -0.5)):
        d_loss = d_loss + F.softplus(-real - index).mean() + F.softplus(torch.tensor(value + index))
        right, wrong, fake = (
            x + index
            for x in (
                real + given.caption[:, 0],
                real + given.wrong_caption[:, 0],
                value + given.caption[:, 0],
            )
        )
        # StackGAN-v2 sums what StackGAN halves.
        d_loss = d_loss + F.softplus(-right).mean()
        d_loss = d_loss + F.softplus(wrong).mean() + F.softplus(fake).mean()
        g_loss = g_loss + F.softplus(torch.tensor(-value - index)) + F.softplus(-fake).mean()
    loss, terms = model.discriminator_loss(given, drawn)
    torch.testing.assert_close(loss, d_loss)
    assert terms["d_real"].shape == (2, 2, 1)
    loss, terms = model.generator_loss(given, drawn)
    # Of constant images the means alone differ, by .75 in each of three channels.
    assert terms["colour_gap"].tolist() == pytest.approx([3 * 0.75**2])
    assert drawn.mean is not None
    assert drawn.log_variance is not None
    divergence = kl_from_standard_normal(drawn.mean, drawn.log_variance).mean()
    torch.testing.assert_close(loss, g_loss + 2 * divergence + 3 * 3 * 0.75**2)


def test_the_colour_term_moves_the_finer_image_alone_and_only_where_it_is_weighed() -> None:
    model = tree(lambda_colour=1.0)
    given = batch()
    images = tuple(torch.rand(4, 3, side, side, requires_grad=True) for side in (8, 16))
    drawn = model.generate(given)._replace(images=images, mean=None, log_variance=None)
    model.generator_loss(given, drawn)[1]["colour_gap"].sum().backward()
    assert images[0].grad is None
    assert images[1].grad is not None
    assert not tree(lambda_colour=0.0).generator_loss(given, drawn)[1]["colour_gap"].requires_grad


def test_alpha_is_the_papers_by_default() -> None:
    assert tree().lambda_colour == 0
    assert tree(text=False).lambda_colour == 50
    assert tree(lambda_colour=2.0).lambda_colour == 2


def test_without_text_the_noise_joins_every_scale() -> None:
    generator = TreeGenerator(Z, None, C, 3, 32, 3, base_channels=2)
    for branch in generator.trunk[1:]:
        layer: Any = branch[0][0]  # type: ignore[index]
        noise = torch.randn(2, Z)
        seen: list[Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        generator(noise)
        handle.remove()
        # After the maps' channels, the noise at each place.
        assert torch.equal(
            seen[0][:, -Z:], noise[:, :, None, None].expand(-1, -1, *seen[0].shape[2:])
        )


def test_without_text_a_tree_trains_on_images_alone() -> None:
    model = tree(text=False, channels=1)
    fit(model, batches=3, size=16)
    assert set(model.latest["d"]) >= {"d_real", "d_fake"}
    assert "kl" not in model.latest["g"]
    images = model.sample(5, all_scales=True)
    assert images.shape == (5, 2, 1, 16, 16)
    grid, columns = model.sample_grid(model.grid_inputs(torch.Generator().manual_seed(0), None))
    assert grid.shape == (16, 1, 16, 2 * 16 + 2)
    assert columns == 4
    with pytest.raises(ValueError, match="trained without text"):
        model.sample(1, captions=["a thin red three"])
    with pytest.raises(ValueError, match="takes no captions"):
        model.sample_inputs({"captions": ["a"]}, None, torch.Generator())
    reals = ImageBatch(torch.zeros(70, 1, 16, 16), torch.zeros(70))
    assert model.real_grid(reals)[0].shape == (64, 1, 16, 16)


# Captions in the model


def test_the_checkpoint_knows_the_words_and_what_to_draw(tmp_path: Path) -> None:
    data = Digits(val_size=8)
    model = tree()
    trainer = train(model, data, 2)
    assert model.captions == data.example_captions
    source: Any = data.text_encoder
    assert model.text_encoder.vocabulary == source.vocabulary
    assert torch.equal(model.encode(["a thin red three"]), source.encode(["a thin red three"]))
    assert not any(p.requires_grad for p in model.text_encoder.parameters())
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    saved = torch.load(tmp_path / "it.ckpt", weights_only=True)
    drawn = []
    for _ in range(2):
        again = tree()
        again.on_load_checkpoint(saved)
        again.load_state_dict(saved["state_dict"])
        inputs = again.sample_inputs(
            {"captions": ["a thin red three", "a blue one"]}, 5, torch.Generator().manual_seed(3)
        )
        assert inputs["captions"] == ["a thin red three", "a blue one"] * 2 + ["a thin red three"]
        drawn.append(again.sample(5, **inputs))
    assert torch.equal(*drawn)
    assert again.sample_inputs({}, 3, torch.Generator())["captions"] == model.captions[:3]
    assert again.sample(2).shape == (2, 3, 16, 16)

    # Resumed beside an encoder trained otherwise, the data is read by the one in the checkpoint.
    other = Digits(encoder_steps=5)
    train(again, other, 3, ckpt_path=tmp_path / "it.ckpt", weights_only=True)
    assert other.train is not None
    train_set: Any = other.train
    expected = model.encode(train_set.captions.texts[:20])
    torch.testing.assert_close(train_set.embeddings[:20], expected)


def test_unknown_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = stackgan()
    known = encoder()
    known.learn_vocabulary(["a thin green three"])
    model._text_encoder = (known,)
    model.captions = ["a thin green three"]
    random = torch.Generator()
    inputs = model.sample_inputs({"captions": ["a greem three"]}, None, random)
    assert inputs["captions"] == ["a greem three"]
    assert "'greem' (green?)" in caplog.text
    with pytest.raises(ValueError, match=r"'ein Grünes'.*captions such as 'a thin green three'"):
        model.sample_inputs({"captions": ["ein Grünes"]}, None, random)
    inputs = model.sample_inputs({"captions": "a three"}, 2, random)
    assert inputs["captions"] == ["a three", "a three"]
    for wrong in ([], [3]):
        with pytest.raises(ValueError, match="give sentences"):
            model.sample_inputs({"captions": wrong}, None, random)
    with pytest.raises(ValueError, match="takes no labels"):
        model.sample_inputs({"labels": [1]}, None, random)
    with pytest.raises(ValueError, match="captions have to be given"):
        tree().sample(1)


def test_the_grid_shows_captions_and_rows_with_a_word_changed(tmp_path: Path) -> None:
    data = Digits()
    model = stackgan(stage_one_share=0.5)
    train(model, data, 2)
    inputs = model.grid_inputs(torch.Generator().manual_seed(0), None)
    asked: list[Any] = []
    sample = model.sample

    def watched(n: int, **options: Any) -> Tensor:
        asked.append(options)
        return sample(n, **options)

    model.sample = watched  # type: ignore[method-assign]
    picture, columns = model.sample_grid(inputs)
    assert columns == 1
    assert picture.shape[:2] == (1, 3)
    examples, digits, inks = asked
    assert examples["captions"] == data.example_captions[:16]
    assert [c.split()[3] for c in digits["captions"]] == [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    ]  # fmt: skip
    assert len(inks["captions"]) == 8
    for row in (digits, inks):
        assert row["noise"].eq(inputs["noise"][0]).all()
    again, _ = model.sample_grid(inputs)
    assert torch.equal(picture, again)
    assert model.real_grid(data.examples())[0].shape[:2] == (1, 3)


def test_captions_stand_over_their_images() -> None:
    images = torch.stack([torch.full((1, 8, 8), value) for value in (-1.0, 0.0, 1.0)])
    captions = ["short", "a long sentence " * 10, "x"]
    picture = captioned(images, captions, columns=2)
    assert picture.shape[:2] == (1, 3)
    for value in (-1.0, 1.0):
        # Eight times as large, on white and with black letters.
        assert (picture == value).sum() >= 3 * 64 * 64
    assert picture.isclose(torch.tensor(0.0), atol=0.01).sum() >= 3 * 64 * 64
    row = captioned(images, ["a red one", "a blue one", "a green one"], 3, common=True)
    assert row.shape[-1] == 3 * (64 + 6) + 6
    both = stacked([picture, row])
    assert both.shape[2] == picture.shape[2] + row.shape[2]
    assert both.shape[3] == max(picture.shape[3], row.shape[3])


def test_images_side_by_side() -> None:
    sets = torch.arange(2 * 3.0).view(2, 3, 1, 1, 1).expand(2, 3, 1, 2, 2)
    wide = side_by_side(sets, gap=1)
    assert wide.shape == (2, 1, 2, 8)
    assert wide[1, 0, 0].tolist() == [3, 3, 0, 4, 4, 0, 5, 5]


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (stackgan, {"stage_one_share": 1.5}, "stage_one_share is 1.5"),
        (stackgan, {"lambda_kl": -1.0}, "lambda_kl is -1"),
        (stackgan, {"loss": "hing"}, "did you mean hinge"),
        (stackgan, {"n_critic": 0}, "n_critic is 0"),
        (tree, {"lambda_colour": -1.0}, "lambda_colour is -1"),
    ],
)
def test_options_that_cannot_be(make: Any, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make(**options)

"""Text-to-image models that train in two stages, one after the other, as StackGAN does."""

from typing import Any

import torch
from torch import Tensor

from gan_zoo.models.text_to_image import TextToImage
from gan_zoo.ranges import Share, checked
from gan_zoo.training.module import Phase


class TwoStages(TextToImage):
    """TextToImage whose iterations are shared out between Stage I and Stage II.

    Players of Stage II end in "_2": ``d`` and ``g`` train in Stage I, ``d_2`` and ``g_2`` in
    Stage II. Losses are logged under the same names in both, with ``stage`` beside them.

    The boundary is set when a run begins, from ``trainer.max_steps``; a run that is resumed with
    more steps trains Stage II in all of them.

    Args:
        stage_one_share: of the iterations, how many Stage I is trained for; 1 trains it alone, 0
            Stage II alone, on the Stage I of another run (``init_from``).

    Raises:
        ValueError: at the start of training, without ``trainer.max_steps`` to share, or if Stage II
            would begin on an untrained Stage I.
    """

    trained_stage: Tensor

    @checked
    def __init__(self, *args: Any, stage_one_share: Share = 0.5, **options: Any) -> None:
        super().__init__(*args, augmentations=2, **options)
        self.stage_one_share = stage_one_share
        self.stage_one_steps: int | None = None
        self._stage_one_shared = False
        self.register_buffer("trained_stage", torch.zeros((), dtype=torch.int64))

    @property
    def stage(self) -> int:
        """The stage that the coming iteration trains, 1 or 2."""
        steps = self.stage_one_steps
        return 1 if steps is None or self.trainer.global_step < steps else 2

    @property
    def last_stage(self) -> int:
        """The stage that was trained last; 1 before any training."""
        return max(1, int(self.trained_stage))

    def phases(self) -> list[Phase]:
        if self.stage == 1:
            return super().phases()
        return [phase._replace(player=f"{phase.player}_2") for phase in super().phases()]

    def age(self, player: str) -> int | None:
        begun = (self.stage_one_steps or 0) if player.endswith("_2") else 0
        in_game = player.endswith("_2") == (self.stage == 2)
        return self.trainer.global_step - begun if in_game else None

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.stage_one_steps is None:
            steps = self.trainer.max_steps
            if steps < 0 and 0 < self.stage_one_share < 1:
                raise ValueError(
                    "trainer.max_steps=-1 can't be shared out between the stages: give a number, "
                    "or model.stage_one_share=1 or 0."
                )
            endless = steps < 0 and self.stage_one_share == 1
            self.stage_one_steps = 2**62 if endless else round(self.stage_one_share * max(steps, 0))
        if self.stage == 2 and not int(self.trained_stage):
            raise ValueError(
                "Stage II begins on a trained Stage I: init_from=RUN_FOLDER names a run that has "
                "one, or model.stage_one_share above 0 trains it first."
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.stage == 2 and not self._stage_one_shared:
            # All ranks need the same Stage I, of which batch norm's running statistics are a part.
            self.share_buffers()
            self._stage_one_shared = True

    def after_phase(self, phase: Phase) -> None:
        self.trained_stage.fill_(self.stage)

    def extra_terms(self) -> dict[str, Tensor]:
        return {"stage": self.trained_stage.float()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["stage_one_steps"] = self.stage_one_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.stage_one_steps = checkpoint["stage_one_steps"]

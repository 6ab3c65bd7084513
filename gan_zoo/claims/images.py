"""Protocols that are measures of scripts/evaluate.py, and InfoGAN's categories."""

from collections.abc import Sequence
from pathlib import Path

import gan_zoo
from gan_zoo.claims import Measured
from gan_zoo.comparison.runs import Run
from gan_zoo.evaluate import data_of, evaluate
from gan_zoo.files import read_json
from gan_zoo.metrics.agreement import category_information, matched_classes
from gan_zoo.metrics.measures import MEASURES
from gan_zoo.models.infogan import InfoGAN
from gan_zoo.run.configuration import composed
from gan_zoo.run.report import METRICS_FILE

# Training images that categories are matched with digits on.
_MATCHED_ON = 20_000


def evaluated(run: Path, metrics: Sequence[str], num_samples: int | None = None) -> Measured:
    """The figures of scripts/evaluate.py, of the last checkpoint against the test images.

    Args:
        metrics, num_samples: as its options.
    """
    config = composed("evaluate")
    config.checkpoint, config.metrics, config.num_samples = str(run), list(metrics), num_samples
    evaluate(config)
    result = read_json(run / METRICS_FILE, dict)
    found = result["evaluation"]["last.ckpt"]
    asked = {name for metric in metrics for name in MEASURES[metric].figures}
    figures = {
        name: row for name, row in found["figures"].items() if name in asked or name[:-2] in asked
    }
    return Measured(
        {name: row["value"] for name, row in figures.items()},
        {name: row["floor"] for name, row in figures.items() if row["floor"] is not None},
        evaluators={name: judge["hash"] for name, judge in found.get("evaluators", {}).items()},
    )


def digit_categories(run: Path) -> Measured:
    """How well InfoGAN's first code knows digits (1606.03657, section 7.2), without labels.

    ``category_error`` is the share of test images outside of their category's digit, where each
    category is matched with one digit on training images. ``category_information`` needs no labels,
    so that runs can be chosen by it. ``mutual_information`` is the last logged bound on the
    categorical code's, in nats.
    """
    trained = gan_zoo.load(run)
    if not isinstance(trained, InfoGAN):
        raise ValueError(f"{run} is no run of InfoGAN.")
    data = data_of(trained)
    training = data.labelled("", "train")
    known = training.__getitems__(range(min(_MATCHED_ON, len(training))))
    test = data.labelled("", "test")
    tested = test.__getitems__(range(len(test)))
    seen, logits = (trained.categories_of(batch.image, known.image) for batch in (known, tested))
    of_category = matched_classes(seen.argmax(1), known.label, seen.shape[1])
    wrong = of_category[logits.argmax(1)] != tested.label
    figures = {
        "category_error": wrong.double().mean().item(),
        "category_information": category_information(seen),
    }
    logged = Run(run, run.name).last
    return Measured(figures | {"mutual_information": logged["train/mutual_information"]})

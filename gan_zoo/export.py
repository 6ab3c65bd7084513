"""Writes a run's generators for use without this package, with a model card beside them."""

import copy
import io
import json
import math
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from safetensors.torch import load, save
from torch import Tensor, nn

from gan_zoo import __version__
from gan_zoo.files import atomic_write, read_json
from gan_zoo.models.codes import CodedImageGAN
from gan_zoo.models.noise_to_image import NoiseToImage, uniform_bounds
from gan_zoo.models.text_to_image import TextToImage
from gan_zoo.models.translation import DIRECTIONS, Translator
from gan_zoo.plotting import enlarged, image_grid, save_png
from gan_zoo.run.checks import refuse_unfit_values
from gan_zoo.run.folder import command_of, opened, run_of
from gan_zoo.run.report import METRICS_FILE, PROVENANCE_FILE

Format = Literal["onnx", "torch_export", "safetensors"]
_KINDS: dict[str, Any] = {
    "checkpoint": str,
    "which": Literal["last", "best"],
    "format": Format,
    "output": str | None,
    "ema": bool,
}
_SUFFIX = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
# Of a run's configuration, what its networks and their training follow from.
_SHARED = ("seed", "model", "dataset", "trainer", "speed", "channels_last", "cuda_graphs")
# Between the written network's images and the checkpoint's, in [-1, 1]: sums in another order.
_TOLERANCE = 1e-3
# Of the picture of samples, in pixels.
_LEAST_WIDTH = 600
# Images that are compared; not what was exported with, to see that any number will do.
_COMPARED = 5


class Part(NamedTuple):
    """A network to write.

    Attributes:
        name: the file's.
        network: from inputs of its names to images (B, ..., C, H, W) in [-1, 1], in eval mode.
        inputs: some for it, of B rows, by name.
        meaning: of each input, in words.
    """

    name: str
    network: nn.Module
    inputs: Callable[[int], dict[str, Tensor]]
    meaning: Mapping[str, str]


class _Drawing(nn.Module):
    """What NoiseToImage.sample does with its networks."""

    def __init__(self, model: NoiseToImage, ema: bool) -> None:
        super().__init__()
        self.network = model.network("generator", ema)
        self._model = (model,)

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        (model,) = self._model
        image = self.network(noise) if label is None else self.network(noise, label)
        return model.finished(image)


class _DrawingOfCodes(_Drawing):
    def forward(self, noise: Tensor, codes: Tensor) -> Tensor:  # type: ignore[override]
        (model,) = self._model
        assert isinstance(model, CodedImageGAN)
        return super().forward(model.codes.joined_to(noise, codes))


class _Translating(nn.Module):
    """A translator's generator, whatever it calls its argument."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        images: Tensor = self.network(image)
        return images


class _DrawingOfCaptions(nn.Module):
    def __init__(self, model: TextToImage, ema: bool) -> None:
        super().__init__()
        self.networks = nn.ModuleList(model.generators(ema))
        self._model = (model,)

    def forward(self, noise: Tensor, caption: Tensor) -> Tensor:
        return self._model[0].images_of(list(self.networks), noise, caption).images[-1]


def export(config: DictConfig) -> None:
    """Writes a folder as conf/export.yaml says: networks, config.json, samples.png, README.md.

    Each network is loaded again, by onnxruntime or by torch alone, and has to give the checkpoint's
    images. After an error nothing is written.

    Raises:
        ValueError: for an option that does not suit, or if the images differ.
        ImportError: without what the format needs.
    """
    refuse_unfit_values(config, _KINDS)
    path, checkpoint, model = opened(config)
    run = run_of(path)
    output = Path(config.output or f"{type(model).__name__.lower()}-{config.format}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output={output} is there already: give another folder.")
    model.eval()
    parts = parts_of(model, config.ema)
    with warnings.catch_warnings():
        # Of the exporters' own insides.
        warnings.simplefilter("ignore")
        written = {part.name: _written(part, config.format) for part in parts}
        differences = [_difference(part, written[part.name], config.format) for part in parts]
    if max(differences) > _TOLERANCE:
        raise ValueError(
            f"The {config.format} network's images differ from the checkpoint's by "
            f"{max(differences):.2g}: nothing was written."
        )
    shown = _shown(parts[0])
    scale = math.ceil(_LEAST_WIDTH / (8 * shown.shape[-1]))
    card = model_card(
        model,
        parts,
        config.format,
        checkpoint["global_step"],
        read_json(run / METRICS_FILE, dict),
        read_json(run / PROVENANCE_FILE, list),
    )
    for part in parts:
        with atomic_write(output / f"{part.name}{_SUFFIX[config.format]}") as aside:
            aside.write_bytes(written[part.name])
    config_of_run = {name: model.config[name] for name in _SHARED if name in model.config}
    # Of the machine that it was trained on.
    config_of_run["dataset"] = {k: v for k, v in model.config["dataset"].items() if k != "root"}
    about = {
        "gan_zoo": __version__,
        "iteration": checkpoint["global_step"],
        "config": config_of_run,
        "inputs": {part.name: part.meaning for part in parts},
    }
    with atomic_write(output / "config.json") as aside:
        aside.write_text(json.dumps(about, indent=2) + "\n")
    save_png(image_grid(enlarged(shown, scale), 8), output / "samples.png")
    with atomic_write(output / "README.md") as aside:
        aside.write_text(card)
    files = ", ".join(f"{part.name}{_SUFFIX[config.format]}" for part in parts)
    print(
        f"{files} and a model card in {output}; loaded again, the images differ by "
        f"{max(differences):.1g} at most."
    )


def parts_of(model: nn.Module, ema: bool) -> list[Part]:
    """The networks of a model that people use, in eval mode.

    Raises:
        ValueError: for a model that has none.
    """
    if isinstance(model, Translator):
        dataset = model.config["dataset"]
        if "channels" not in dataset:
            raise ValueError("This checkpoint's model translates points, not pictures.")
        shape = dataset["channels"], dataset["image_size"], dataset["image_size"]

        def pictures(n: int) -> dict[str, Tensor]:
            return {"image": torch.rand(n, *shape, generator=_seeded()) * 2 - 1}

        meaning = {"image": f"(B, {', '.join(map(str, shape))}) float32, in [-1, 1]"}
        names = [f"generator_{direction}" for direction in DIRECTIONS]
        return [
            Part(name, _Translating(model.network(name, ema)).eval(), pictures, meaning)
            for name in names
        ]
    if not isinstance(model, NoiseToImage):
        raise ValueError(f"export.py can't export a {type(model).__name__}.")
    noise = f"(B, {model.draw_noise(1).shape[1]}) float32, {_words(model.noise)}"
    if isinstance(model, TextToImage):

        def captions(n: int) -> Tensor:
            if not model.has_text:
                return torch.empty(n, 0)
            return model.encode([model.captions[i % len(model.captions)] for i in range(n)])

        def captioned(n: int) -> dict[str, Tensor]:
            return {"noise": model.draw_noise(n, _seeded()), "caption": captions(n)}

        what = (
            "embeddings by the run's own text encoder, which the checkpoint has: "
            "gan_zoo.load(checkpoint).encode(captions)"
            if model.has_text
            else "as the run was without captions"
        )
        meaning = {"noise": noise, "caption": f"(B, {captions(1).shape[1]}) float32, {what}"}
        return [Part("generator", _DrawingOfCaptions(model, ema).eval(), captioned, meaning)]
    if isinstance(model, CodedImageGAN):
        codes = model.codes

        def coded(n: int) -> dict[str, Tensor]:
            random = _seeded()
            return {"noise": model.draw_noise(n, random), "codes": model.draw_codes(n, random)}

        meaning = {
            "noise": noise,
            "codes": f"(B, {codes.total}) float32: {len(codes.categorical)} categories, counted "
            f"from 0 (of {', '.join(map(str, codes.categorical)) or 'none'}), then "
            f"{codes.continuous} values in [-1, 1]",
        }
        return [Part("generator", _DrawingOfCodes(model, ema).eval(), coded, meaning)]
    meaning = {"noise": noise}
    if model.num_classes:
        meaning["label"] = f"(B,) int64, from 0 to {model.num_classes - 1}"

    def drawn(n: int) -> dict[str, Tensor]:
        inputs = {"noise": model.draw_noise(n, _seeded())}
        if model.num_classes:
            inputs["label"] = torch.arange(n) % model.num_classes
        return inputs

    return [Part("generator", _Drawing(model, ema).eval(), drawn, meaning)]


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _words(noise: Any) -> str:
    """A distribution in words, such as ``uniform, a=-1.0, b=1.0``."""
    name = getattr(noise, "func", noise).__name__.strip("_")
    options = getattr(noise, "keywords", {})
    return ", ".join([name, *(f"{key}={value}" for key, value in options.items())])


def _written(part: Part, format: str) -> bytes:
    try:
        return _WRITERS[format](part)
    except ImportError:
        raise
    # Exporters raise whatever a network's operations run them into.
    except Exception as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ValueError(
            f"format={format} can't express {part.name}: {reason} format=safetensors has the "
            "weights alone."
        ) from error


def _onnx(part: Part) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError(
            f"format=onnx needs {error.name}: pip install 'gan_zoo[export]'."
        ) from error
    inputs = part.inputs(3)
    shapes = {name: {0: torch.export.Dim("batch")} for name in inputs}
    program = torch.onnx.export(
        part.network, kwargs=inputs, dynamo=True, dynamic_shapes=shapes, verbose=False,
        input_names=list(inputs), output_names=["images"],
    )  # fmt: skip
    assert program is not None
    return program.model_proto.SerializeToString()


def _torch_export(part: Part) -> bytes:
    inputs = part.inputs(3)
    shapes = {name: {0: torch.export.Dim("batch")} for name in inputs}
    with torch.no_grad():
        program = torch.export.export(part.network, (), inputs, dynamic_shapes=shapes)
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def _safetensors(part: Part) -> bytes:
    weights = {name: value.contiguous() for name, value in part.network.state_dict().items()}
    return save(weights, {"format": "pt"})


_WRITERS: dict[str, Callable[[Part], bytes]] = {
    "onnx": _onnx,
    "torch_export": _torch_export,
    "safetensors": _safetensors,
}


@torch.no_grad()
def _difference(part: Part, content: bytes, format: str) -> float:
    """The largest one between the images of what was written and the network's."""
    inputs = part.inputs(_COMPARED)
    expected = part.network(**inputs)
    found = _READERS[format](part, content)(inputs)
    return float((found - expected).abs().max())


def _read_onnx(part: Part, content: bytes) -> Callable[[dict[str, Tensor]], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    # An input of no columns, as captions without text, is left out of the graph.
    names = {node.name for node in session.get_inputs()}

    def run(inputs: dict[str, Tensor]) -> Tensor:
        arrays = {name: np.asarray(value) for name, value in inputs.items() if name in names}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run


def _read_torch_export(part: Part, content: bytes) -> Callable[[dict[str, Tensor]], Tensor]:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda inputs: module(**inputs)


def _read_safetensors(part: Part, content: bytes) -> Callable[[dict[str, Tensor]], Tensor]:
    network = copy.deepcopy(part.network)
    for value in network.state_dict().values():
        value.zero_()
    network.load_state_dict(load(content))
    return lambda inputs: network(**inputs)


_READERS: dict[str, Callable[[Part, bytes], Callable[[dict[str, Tensor]], Tensor]]] = {
    "onnx": _read_onnx,
    "torch_export": _read_torch_export,
    "safetensors": _read_safetensors,
}


@torch.no_grad()
def _shown(part: Part) -> Tensor:
    """Sixty-four images, or the first of each pair or scale."""
    images = part.network(**part.inputs(64))
    return images if images.dim() == 4 else images.flatten(0, 1)[:64]


def model_card(
    model: Any,
    parts: Sequence[Part],
    format: str,
    step: int,
    metrics: Mapping[str, Any],
    provenance: Sequence[Mapping[str, Any]],
) -> str:
    """The text of README.md: where the networks come from, how good they are, and how to use them.

    Args:
        metrics, provenance: of the run's folder; empty where they are not there any more.
    """
    name, dataset = type(model).__name__, model.config["dataset"]
    paper = (sys.modules[type(model).__module__].__doc__ or name).splitlines()[0].rstrip(".")
    session = provenance[-1] if provenance else {}
    data = dataset["name"]
    if checksum := session.get("dataset", {}).get("sha256"):
        data += f", sha256 of the training images `{checksum}`"
    script, *arguments = session.get("command", [""])
    command = f"{command_of(Path(script))} {shlex.join(arguments)}" if script else "not known"
    versions = ", ".join(f"{k} {v}" for k, v in session.get("versions", {}).items())
    lines = [
        f"# {name} on {dataset['name']}",
        "",
        "![samples](samples.png)",
        "",
        "| | |",
        "|---|---|",
        f"| paper | {paper} |",
        f"| data | {data} |",
        f"| training | {step:,} iterations, {model.counts['images_seen']:,} images seen |",
        f"| command | `{command}` |",
        f"| versions | {versions or 'not known'} |",
        "| licence | the code that trained it is under the MIT licence; what may be done with the "
        "weights depends on the training images too |",
        "",
        "All options of the run are in `config.json`.",
        "",
        "## Figures",
        "",
        *_figures(metrics),
        "",
        "## Use",
        "",
        *(
            f"- `{part.name}{_SUFFIX[format]}`, `{key}`: {words}."
            for part in parts
            for key, words in part.meaning.items()
        ),
        "",
        "The result is images in [-1, 1].",
        "",
        "```python",
        *_SNIPPETS[format](model, parts[0]),
        "```",
        "",
    ]
    return "\n".join(lines)


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    """A table of an evaluation, or else of the last measurement in training."""
    evaluations = metrics.get("evaluation", {})
    rows = []
    if evaluations:
        name, evaluation = next(reversed(evaluations.items()))
        judges = ", ".join(f"`{e['hash']}`" for e in evaluation.get("evaluators", {}).values())
        about = f"By `evaluate.py` on the test images ({name}, evaluator {judges or 'none'}); "
        for key, figure in evaluation["figures"].items():
            rows.append((key, figure["value"], figure["floor"], f"{figure['n_fake']:,}"))
    else:
        about = "Measured in training, against validation images; "
        for key, value in metrics.items():
            if key.startswith("metrics/"):
                figure = key.removeprefix("metrics/")
                rows.append((figure, value, metrics.get(f"metrics_floor/{figure}"), ""))
    if not rows:
        return ["Nothing has been measured."]
    return [
        about + "the floor is the same measure of real images.",
        "",
        "| figure | value | floor | images |",
        "|---|---|---|---|",
        *(
            f"| `{key}` | {value:.4g} | {'' if floor is None else f'{floor:.4g}'} | {count} |"
            for key, value, floor, count in rows
        ),
    ]


def _example(model: Any, part: Part) -> str:
    """Inputs for 16 images, in Python."""
    shapes = {name: (16, *value.shape[1:]) for name, value in part.inputs(1).items()}
    made = []
    for name, shape in shapes.items():
        bounds = uniform_bounds(model.noise) if name == "noise" else None
        if name == "label":
            made.append(f"{name} = torch.arange(16) % {model.num_classes}")
        elif bounds:
            made.append(f"{name} = torch.empty{shape}.uniform_{bounds}")
        else:
            made.append(f"{name} = torch.{'zeros' if name == 'codes' else 'randn'}{shape}")
    return "\n".join(made)


def _of_onnx(model: Any, part: Part) -> list[str]:
    given = ", ".join(f'"{name}": {name}.numpy()' for name in part.inputs(1))
    return [
        "import onnxruntime, torch",
        f'session = onnxruntime.InferenceSession("{part.name}.onnx")',
        _example(model, part),
        f"images = session.run(None, {{{given}}})[0]",
    ]


def _of_torch_export(model: Any, part: Part) -> list[str]:
    given = ", ".join(f"{name}={name}" for name in part.inputs(1))
    return [
        "import torch",
        f'network = torch.export.load("{part.name}.pt2").module()',
        _example(model, part),
        f"images = network({given})",
    ]


def _of_safetensors(model: Any, part: Part) -> list[str]:
    return [
        "# The weights alone: the networks are gan_zoo's, with the options in config.json.",
        "from safetensors.torch import load_file",
        f'weights = load_file("{part.name}.safetensors")',
    ]


_SNIPPETS: dict[str, Callable[[Any, Part], list[str]]] = {
    "onnx": _of_onnx,
    "torch_export": _of_torch_export,
    "safetensors": _of_safetensors,
}

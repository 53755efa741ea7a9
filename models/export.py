"""Export of a network to ONNX, torch.export and safetensors, with its card, and back from two of them."""

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.models.weights_file import contents

Format = Literal["onnx", "pt2", "safetensors"]
CARD = "fulgurite"
"""The key of the card in the metadata of a file."""
LARGEST_CARD = 4 * 2**20
TOLERANCE = 1e-4
"""Tolerance of logits, relative to the largest one, or to 1 if that is more."""


def exported(
    network: nn.Module, images: Float[Tensor, "n c h w"], kind: Format, card: Mapping[str, Any]
) -> bytes:
    """The file of a network in eval mode, from images in [0, 1] to logits, for any number of images.

    Its normalisation is in it. Inputs are called `images`, outputs `logits`. Networks are moved to the CPU.

    Args:
        network: to be exported.
        images: some of its size, two or more, all of which are used to follow its forward pass.
        kind: "onnx", "pt2" (torch.export), or "safetensors" for its weights alone.
        card: is written into the file's metadata, as JSON.

    Raises:
        ValueError: an operator that ONNX lacks, a forward pass that depends on values, or no onnx package.
    """
    network, text = network.cpu().eval(), json.dumps(card)
    if kind == "safetensors":
        state = {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
        return safetensors.torch.save(state, metadata={"format": "pt", CARD: text})
    program = _program(network, images.cpu())
    if kind == "onnx":
        return _onnx(program, text)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={f"{CARD}.json": text})
    return file.getvalue()


def runs_as(content: bytes, kind: Format, network: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a file computes, from images to logits; of weights, what the network computes with them.

    The file must be trusted: files of torch.export may contain code.
    """
    if kind == "onnx":
        return OnnxNetwork(content)
    if kind == "pt2":
        return torch.export.load(io.BytesIO(content)).module()
    state = safetensors.torch.load(content)
    return lambda images: torch.func.functional_call(network, state, (images,))


def largest_difference(
    content: bytes, kind: Format, network: nn.Module, images: Float[Tensor, "n c h w"]
) -> float:
    """How much the file's logits differ from the network's: in shares of the largest, or of 1 if it is less.

    One image and all of them.
    """
    answers, images = runs_as(content, kind, network), images.cpu()
    worst = torch.zeros(())
    with torch.no_grad():
        for part in (images, images[:1]):
            own, other = network(part).float(), answers(part).float()
            difference = (own - other).abs().max() / own.abs().max().clamp(min=1.0)
            worst = worst.maximum(difference)  # NaN stays
    return float(worst)


class OnnxNetwork(nn.Module):
    """A network of an ONNX file, run by onnxruntime on the CPU; it has no gradients and no layers.

    Raises:
        ValueError: onnxruntime is not installed, or the file, called `source`, is damaged.
    """

    def __init__(self, content: bytes, source: str = "it"):
        super().__init__()
        runtime = _runtime()
        try:
            self.session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base
            raise ValueError(
                f"{source} is no ONNX network that onnxruntime can run: {_first(error)}"
            ) from error
        self.input = self.session.get_inputs()[0].name

    @property
    def metadata(self) -> dict[str, str]:
        """The texts that go with the network."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits."""
        found = self.session.run(None, {self.input: images.detach().cpu().numpy()})[0]
        return torch.from_numpy(found).to(images.device)


def read_card(path: Path) -> tuple[dict[str, Any], OnnxNetwork | dict[str, Tensor]]:
    """The card of an exported file, and its ONNX network or its weights.

    Raises:
        ValueError: it is not a file of `export`, or one of torch.export, which may hold code.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix == ".pt2":
        raise ValueError(
            f"{path} is a file of torch.export, which may hold code and is not read here; export with --to "
            "onnx or safetensors, or load it yourself by torch.export.load"
        )
    if path.suffix == ".onnx":
        network = OnnxNetwork(path.read_bytes(), str(path))
        return _card(path, network.metadata), network
    state = contents(path)
    assert isinstance(state, dict)
    with safetensors.safe_open(path, "pt") as file:
        return _card(path, file.metadata() or {}), state


def _card(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get(CARD, "")
    try:
        card = json.loads(text) if len(text) <= LARGEST_CARD else None
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise ValueError(f"{path} has no card of a run; wanted a file that export RUN has written")
    return card


def _program(network: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    try:
        with _quiet():
            return torch.export.export(
                network, (images,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},), strict=False
            )
    except Exception as error:  # torch raises errors of any type
        raise ValueError(
            f"torch.export cannot follow the forward pass of {type(network).__name__}: {_first(error)}"
        ) from error


def _onnx(program: torch.export.ExportedProgram, card: str) -> bytes:
    _runtime()
    try:
        with _quiet():
            found = torch.onnx.export(
                program, dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
            )
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(_unconverted(error)) from error
    assert found is not None
    model = found.model_proto
    model.metadata_props.add(key=CARD, value=card)
    try:
        return model.SerializeToString()
    except Exception as error:  # protobuf's own error, above 2 GB
        raise ValueError(f"the network is too large for one ONNX file: {_first(error)}") from error


def _unconverted(error: BaseException | None) -> str:
    """Which operator it is, from the errors that led to one another."""
    words = str(error).splitlines()[0]
    while error is not None:
        if lacking := re.search(r"No ONNX function found for .*?op='([\w.:]+)'", str(error)):
            return (
                f"ONNX lacks the operator {lacking[1]}, which the network uses; --to pt2 keeps all operators"
            )
        error = error.__cause__ or error.__context__
    return f"the network cannot be converted to ONNX: {words}; --to pt2 keeps all operators"


def _runtime() -> Any:
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ValueError(
            f"ONNX needs the package {error.name}, which is not installed; pip install 'fulgurite[onnx]'"
        ) from None
    del onnx, onnxscript
    return onnxruntime


def _first(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporters warn of each other."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

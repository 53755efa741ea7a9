"""The card of an exported network, to be read: classes, size, metrics, recipe and command."""

from collections.abc import Mapping
from typing import Any

_USE = {
    "onnx": """import onnxruntime
session = onnxruntime.InferenceSession("{file}")
logits = session.run(None, {{"images": images}})[0]  # float32, [n, {channels}, {size}, {size}], in [0, 1]""",
    "pt2": """import torch
network = torch.export.load("{file}").module()
logits = network(images)  # float32, [n, {channels}, {size}, {size}], in [0, 1]""",
    "safetensors": """from fulgurite import build
network = build("{network}", classes={classes}, channels={channels}, weights="{file}").eval()
logits = network(images)  # float32, [n, {channels}, {size}, {size}], in [0, 1]""",
}


def markdown(card: Mapping[str, Any], file: str, kind: str) -> str:
    """The card as Markdown, with the lines that use the file of this name and kind."""
    images, run = card["images"], card["run"]
    values = {
        **{name: images.get(name, "?") for name in ("size", "channels")},
        "classes": len(images.get("classes", ())),
        "network": card["network"],
        "file": file,
    }
    metrics = [f"| {name} | {value:.4f} |" for name, value in card["metrics"].items()]
    calibration = card["calibration"]
    metrics += [
        f"| expected calibration error, {name} | {own['expected calibration error']:.4f} |"
        for name, own in calibration.items()
        if isinstance(own, Mapping)
    ]
    if (temperature := calibration.get("temperature")) is not None:
        metrics.append(f"| temperature, fitted on validation images | {temperature:.4g} |")
    table = ["| metric | value |", "|---|---|", *metrics] if metrics else ["None were measured."]
    names = ", ".join(map(str, images.get("classes", ())))
    lines = [
        f"# {file}",
        "",
        f"{card['network'] or 'A network'}, trained by the recipe `{run['recipe']}` of Fulgurite "
        f"{card['fulgurite']}; weights of `{card['checkpoint']}`.",
        "",
        f"- Input `images`: float32, [n, {values['channels']}, {values['size']}, {values['size']}], in "
        "[0, 1]; normalisation is inside.",
        f"- Framing of photographs: {images.get('framing', '?')}, {values['size']} px.",
        f"- Output `logits`: [n, {values['classes']}], of the classes: {names}.",
        "",
        "## Use",
        "",
        "```",
        _USE[kind].format(**values),
        "```",
        "",
        "## Metrics",
        "",
        *table,
        "",
        "## Made by",
        "",
        "```",
        card["command"],
        "```",
        "",
        f"Versions: {', '.join(f'{name} {version}' for name, version in run['versions'].items())}; commit "
        f"{run['commit'] or 'unknown'}.",
    ]
    return "\n".join(lines) + "\n"

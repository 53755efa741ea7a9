"""Arguments of a wrong type raise a clear error without the type checker of the tests, as for users."""

from pathlib import Path

from processes import Script

SAID = {
    "target koala": "targets 'koala'; wanted a class number",
    "target True": "targets True; wanted a class number",
    "generator": "generator=0; wanted such as torch.Generator()",
    "threat of pgd": "0.03 is not a threat",
    "threat of fgsm": "0.03 is not a threat",
    "threat of evaluate": "0.03 is not a threat",
    "threat of curve": "0.03 is not a threat",
    "steps": "steps=2.5; wanted a whole number of at least 1",
    "step_size": "step_size='a'; wanted a finite number of at least 0",
    "momentum": "momentum='a'; wanted a finite number of at least 0",
    "loss": "no loss None; ",
    "gradient_pass": "gradient_pass='fast'; wanted such as FAST",
    "at_once": "at_once=1.5; wanted a whole number of at least 1",
    "batch_size": "batch_size=1.5; wanted a whole number of at least 1",
    "radii": "radii='8/255'; wanted several",
    "none": "no attacks; wanted at least one",
    "target_classes": "target_classes='9'; wanted a whole number",
    "queries": "queries=True; wanted a whole number",
    "array": "images that are a ndarray; wanted a tensor",
    "list": "attacks that are a list; wanted them by name",
    "calibration": "probabilities (2, 3) and labels (3,); wanted [images, classes]",
    "temperature": "logits (3, 3) and labels (2,); wanted [images, classes]",
    "features": "features (4, 2) and labels (3,); wanted [images, features]",
    "stages": "features (4, 2, 3) and labels (4,); wanted [images, features]",
    "networks": "networks that are a list; wanted them by name",
    "word": "the attack 'P' is 'pgd'; wanted a function",
}


def test_a_wrong_kind_of_argument_is_reported_in_a_sentence():
    file = Path(__file__).parent / "unchecked.py"
    reported = Script(file).ended()
    assert reported.returncode == 0, reported.stderr
    lines = dict(line.split(": ", 1) for line in reported.stdout.splitlines())
    assert lines.keys() == SAID.keys()
    for name, printed in SAID.items():
        assert lines[name].startswith(printed)

"""Arguments of wrong types without the type checker of the tests, as for users; prints the errors."""

import torch
from torch import nn

from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.representation.calibration import calibration, fitted_temperature
from fulgurite.probes.representation.transferability import h_score, log_me
from fulgurite.probes.robustness.evaluate import curve, evaluate
from fulgurite.probes.robustness.transfer_matrix import transfer_matrix

NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
GIVEN = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])
THREAT = Linf(0.1)
SLIPS = {
    "target koala": lambda: pgd(NETWORK, *GIVEN, THREAT, target="koala"),
    "target True": lambda: pgd(NETWORK, *GIVEN, THREAT, target=True),
    "generator": lambda: pgd(NETWORK, *GIVEN, THREAT, generator=0),
    "threat of pgd": lambda: pgd(NETWORK, *GIVEN, 0.03),
    "threat of fgsm": lambda: fgsm(NETWORK, *GIVEN, 0.03),
    "threat of evaluate": lambda: evaluate(NETWORK, *GIVEN, 0.03),
    "threat of curve": lambda: curve(NETWORK, *GIVEN, 0.03, [0.1]),
    "steps": lambda: pgd(NETWORK, *GIVEN, THREAT, steps=2.5),
    "step_size": lambda: pgd(NETWORK, *GIVEN, THREAT, step_size="a"),
    "momentum": lambda: pgd(NETWORK, *GIVEN, THREAT, momentum="a"),
    "loss": lambda: pgd(NETWORK, *GIVEN, THREAT, loss=None),
    "gradient_pass": lambda: pgd(NETWORK, *GIVEN, THREAT, gradient_pass="fast"),
    "at_once": lambda: pgd(NETWORK, *GIVEN, THREAT, at_once=1.5),
    "batch_size": lambda: evaluate(NETWORK, *GIVEN, THREAT, {"P": pgd}, batch_size=1.5),
    "radii": lambda: curve(NETWORK, *GIVEN, THREAT, "8/255"),
    "none": lambda: evaluate(NETWORK, *GIVEN, THREAT, {}),
    "target_classes": lambda: apgd(NETWORK, *GIVEN, THREAT, target_classes="9"),
    "queries": lambda: square(NETWORK, *GIVEN, THREAT, queries=True),
    "array": lambda: pgd(NETWORK, GIVEN[0].numpy(), GIVEN[1], THREAT),
    "list": lambda: evaluate(NETWORK, *GIVEN, THREAT, [pgd]),
    "calibration": lambda: calibration(torch.eye(3)[:2], torch.arange(3)),
    "temperature": lambda: fitted_temperature(torch.eye(3), torch.arange(2)),
    "features": lambda: h_score(torch.rand(4, 2), torch.arange(3)),
    "stages": lambda: log_me(torch.rand(4, 2, 3), torch.arange(4)),
    "networks": lambda: transfer_matrix([NETWORK], *GIVEN, THREAT, pgd),
    "word": lambda: evaluate(NETWORK, *GIVEN, THREAT, {"P": "pgd"}),
}

for name, slip in SLIPS.items():
    try:
        slip()
    except ValueError as error:
        print(f"{name}: {error}")

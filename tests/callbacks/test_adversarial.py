"""What the callbacks for attacks show: examples, robustness by radius with its checks, and alignment."""

import warnings
from functools import partial
from pathlib import Path

import pytest
import somebody
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from fulgurite.callbacks import adversarial_examples, robustness
from fulgurite.callbacks.adversarial_examples import AdversarialExamples
from fulgurite.callbacks.framework.artifacts import Picture, Scalar, Table
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.robustness import Robustness
from fulgurite.callbacks.saliency_alignment import SaliencyAlignment
from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.render_attack import row
from fulgurite.probes.attacks.threat import L1, L2, Linf
from fulgurite.probes.attribution.alignment import alignment
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.robustness.report import CUMULATIVE, UNCHECKED

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}
CHEAP = {"checks_every": None}


class Linear(nn.Module):
    """Two logits, w.x and -w.x, of 3 x 4 x 4 images; w is the first weight row."""

    def __init__(self):
        super().__init__()
        self.row = nn.Linear(48, 2, bias=False)
        weight = torch.randn(48, generator=torch.Generator().manual_seed(0))
        self.row.weight = nn.Parameter(torch.stack([weight, -weight]))

    def forward(self, images):
        return self.row((images - 0.5).flatten(1))


def sample(count: int = 150, *, labels: bool = True, classes: int = 2) -> Sample:
    """Images around mid-grey, so that no pixel meets its bound, with the linear network's own labels."""
    images = 0.5 + 0.02 * torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answers = Linear()(images).argmax(1)
    names = tuple(f"class {k}" for k in range(classes))
    return Sample(images, answers if labels else None, names, torch.device("cpu"))


def looked(probe, given: Sample, net: nn.Module | None = None, *, ranks: int = 1) -> dict:
    """What the probe pins, the subjects shared by so many processes."""
    with frozen_eval(net or Linear()) as own:
        subjects = probe.subjects(own, given)
        shares = [probe.observe(own, given, subjects[rank::ranks]) for rank in range(ranks)]
        seen = {key: one for mine in shares for key, one in mine.items()}
        return dict(probe.compose({subject: seen[subject] for subject in subjects}, given))


def pixels(pinned: dict) -> dict[str, torch.Tensor]:
    return {tag: item.pixels for tag, item in pinned.items() if isinstance(item, Picture)}


def numbers(pinned: dict) -> dict[str, float]:
    return {tag: float(item.value) for tag, item in pinned.items() if isinstance(item, Scalar)}


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4))


# examples


def test_a_strip_is_what_the_attack_made_of_the_image(monkeypatch):
    given, rows = sample(5), []
    monkeypatch.setattr(
        adversarial_examples, "row", lambda *told, **how: rows.append(told) or row(*told, **how)
    )
    looked(AdversarialExamples(Linf(0.02)), given)
    moved = pgd(Linear(), given.images, given.labels, Linf(0.02), steps=20)
    assert len(rows) == 5
    for place, (image, attacked, _, _) in enumerate(rows):
        assert torch.equal(image, given.images[place])
        torch.testing.assert_close(attacked, moved[place])


def captions(monkeypatch, probe, given) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(
        adversarial_examples,
        "row",
        lambda a, b, *words, **how: told.append(words) or row(a, b, *words, **how),
    )
    looked(probe, given)
    return told


def test_the_captions_say_what_was_predicted_and_what_became_of_it(monkeypatch):
    given = sample(6)
    label, other = int(given.labels[0]), 1 - int(given.labels[0])
    fooled = captions(monkeypatch, AdversarialExamples(Linf(0.4)), given[[0]])
    assert fooled == [
        (f"class {label}: {_chance(given, 0)}\ntrue class {label}", f"class {other}: 100%\nfooled")
    ]
    stands = captions(monkeypatch, AdversarialExamples(Linf(0.0)), given[[0]])
    assert stands[0][1].endswith(f"class {label}: {_chance(given, 0)}\nstands")
    swapped = Sample(given.pixels, 1 - given.labels, given.classes, given.device)
    wrong = captions(monkeypatch, AdversarialExamples(Linf(0.0)), swapped[[0]])
    assert wrong[0][0].endswith(f"\ntrue class {other}")
    assert wrong[0][1].endswith("\nwrong before")


def _chance(given: Sample, place: int) -> str:
    with torch.no_grad():
        return f"{Linear()(given.images)[place].softmax(0).max():.0%}"


def test_without_labels_what_is_predicted_is_attacked(monkeypatch):
    told = captions(monkeypatch, AdversarialExamples(Linf(0.4)), sample(3, labels=False))
    assert all(after.endswith("fooled") for _, after in told)


def test_under_l1_where_pgd_gets_nowhere_it_is_apgd():
    usual, sparse = AdversarialExamples(Linf(0.02)), AdversarialExamples(L1(1.5))
    assert (usual.attack_name, sparse.attack_name) == ("PGD-20", "APGD-20")
    assert (usual.attack.func, sparse.attack.func) == (pgd, apgd)
    looked(sparse, sample(2))
    assert AdversarialExamples(Linf(0.02), attack=fgsm).attack_name == "fgsm"


def test_another_attack_can_be_chosen():
    one, other = (
        pixels(looked(AdversarialExamples(Linf(0.02), attack=attack), sample(2), small_network()))[""]
        for attack in (None, partial(fgsm, start="image"))
    )
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdversarialExamples(Linf(0.05)),
        lambda: Robustness(Linf(0.05), attacks={"PGD-5": partial(pgd, steps=5)}, checked=2, radii=[0, 0.05]),
        lambda: SaliencyAlignment(),
    ],
    ids=["AdversarialExamples", "Robustness", "SaliencyAlignment"],
)
@pytest.mark.parametrize("ranks", [2, 3])
def test_pictures_and_numbers_are_bit_for_bit_those_of_one_process(make, ranks):
    count = 7 if isinstance(make(), AdversarialExamples) else 130
    given = sample(count, classes=4)
    one, several = (looked(make(), given, small_network(), ranks=processes) for processes in (1, ranks))
    assert numbers(one) == numbers(several)
    assert all(torch.equal(picture, pixels(several)[tag]) for tag, picture in pixels(one).items())
    assert [item.rows for item in one.values() if isinstance(item, Table)] == [
        item.rows for item in several.values() if isinstance(item, Table)
    ]


# robustness


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.05)], ids=repr)
def test_on_a_linear_network_the_accuracy_at_each_radius_is_the_closed_form(threat):
    given, weight = sample(), Linear().row.weight[0].detach()
    # moved by r, w.x moves by r times the dual norm of w, and both logits at once
    dual = weight.abs().sum() if isinstance(threat, Linf) else weight.norm()
    reaches = ((given.images - 0.5).flatten(1) @ weight).abs() / dual
    seen = numbers(looked(Robustness(threat, **CHEAP), given))
    for radius in (0.5 * threat.epsilon, threat.epsilon, 1.5 * threat.epsilon, 2 * threat.epsilon):
        exact, found = float((reaches > radius).float().mean()), seen[f"at radius {radius:.3g}"]
        # on a sphere, steps come near the worst point but not quite there: it matters to an image or two
        assert exact - 1e-6 <= found <= exact + (1e-6 if isinstance(threat, Linf) else 2.1 / len(given))
    assert seen["PGD-20"] == seen[f"at radius {threat.epsilon:.3g}"]
    assert seen["clean"] == 1
    assert 0 < seen["PGD-20"] < 1


def test_every_attack_is_on_what_the_ones_before_it_left():
    asked = []

    def counted(network, images, labels, threat, *, to):
        asked.append(len(images))
        return fgsm(network, images, labels, threat) if to == "fool" else images

    attacks = {"first": partial(counted, to="fool"), "second": partial(counted, to="keep")}
    seen = numbers(looked(Robustness(Linf(0.005), attacks=attacks, radii=[0], **CHEAP), sample(60)))
    assert asked == [60, round(60 * seen["first"])]
    assert seen["second"] == seen["first"] < 1


def test_the_curve_begins_at_the_clean_accuracy_and_shows_the_ensemble(monkeypatch):
    monkeypatch.setattr(robustness, "ensemble", lambda threat, classes, **_: {"strong": fgsm})
    drawn = {}
    monkeypatch.setattr(
        robustness,
        "line_plot",
        lambda lines, **how: drawn.update(lines, vline=how["vline"]) or torch.zeros(3, 2, 2).byte(),
    )
    seen = looked(Robustness(Linf(0.005), ensemble_every=1, **CHEAP), sample(60))
    assert drawn["PGD-20"][0] == (0, numbers(seen)["clean"])
    assert [radius for radius, _ in drawn["PGD-20"]] == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01])
    assert drawn["ensemble"] == [(0.005, numbers(seen)["ensemble"])]
    assert drawn["vline"] == 0.005
    assert [row[0] for row in seen["stages"].rows] == ["clean", "PGD-20", "+ strong", CUMULATIVE, UNCHECKED]


def test_two_classes_get_the_margin_for_the_targeted_dlr_and_the_table_says_so(monkeypatch):
    real = robustness.ensemble
    monkeypatch.setattr(
        robustness, "ensemble", lambda threat, classes, **_: dict.fromkeys(real(threat, classes), fgsm)
    )
    probe = Robustness(Linf(0.004), ensemble_every=1, **CHEAP)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = looked(probe, sample(10))["stages"].rows
    assert [row[0] for row in rows][:4] == ["clean", "PGD-20", "+ APGD-CE", "+ APGD-T (margin)"]
    assert len(rows) == 9
    assert rows[-3][0] == CUMULATIVE
    assert "margin" in rows[-2][0]
    assert rows[-1][0] == UNCHECKED


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Linear()

    def forward(self, images):
        return self.net(images).softmax(1)


@pytest.mark.parametrize(("network", "failed"), [(Linear, False), (Probabilities, True)])
def test_checks_that_fail_are_counted_and_named(network, failed):
    seen = looked(Robustness(Linf(0.005), checked=16, radii=[0]), sample(40), network())
    verdicts = {name: verdict for name, _, verdict, _ in seen["checks"].rows}
    assert len(verdicts) == 9
    assert (verdicts["softmax outputs"] == "FAIL") is failed
    assert numbers(seen)["failed checks"] == sum(verdict == "FAIL" for verdict in verdicts.values())
    assert (numbers(seen)["failed checks"] > 0) is failed
    notes = [row[0] for row in seen["stages"].rows]
    assert any("checks failed" in note for note in notes) is failed
    assert UNCHECKED not in notes


class Steps(nn.Module):
    """Right about the first 64 images, by steps that have no gradient; wrong about all others."""

    def forward(self, images):
        bright = (images.mean((1, 2, 3)) > 0.5).long()
        return nn.functional.one_hot(bright, 2).float()


@pytest.mark.parametrize("wrong", [0, 64])
def test_without_a_gradient_what_can_be_told_is_told(wrong):
    given = sample(128)
    labels = (given.images.mean((1, 2, 3)) > 0.5).long()
    labels[64 : 64 + wrong] = 1 - labels[64 : 64 + wrong]
    given = Sample(given.images, labels, given.classes, given.device)
    seen = looked(Robustness(Linf(0.005), checked=16, radii=[0, 0.01]), given, Steps())
    assert numbers(seen)["clean"] == 1 - wrong / 128
    assert "PGD-20" not in numbers(seen)
    assert not any(name.startswith("at radius") for name in numbers(seen))
    verdicts = {name: (verdict, says) for name, _, verdict, says in seen["checks"].rows}
    for name in ("one step beats many", "radius 0 is not clean", "more steps still help"):
        assert verdicts[name][0] == "FAIL"
        assert verdicts[name][1].startswith("could not be checked")
    assert any("was left out" in row[0] for row in seen["stages"].rows)
    assert numbers(seen)["failed checks"] > 0


def steps_of(folder: Path) -> dict[str, list[int]]:
    return {tag: [step for step, _ in values] for tag, values in somebody.scalars(folder).items()}


@pytest.fixture
def cheap(monkeypatch):
    """The ensemble and the checks cost nothing."""
    monkeypatch.setattr(robustness, "ensemble", lambda threat, classes, **_: {"FGSM": fgsm})
    monkeypatch.setattr(robustness, "sanity_checks", lambda *given: [])


def watched(**how) -> Robustness:
    dear = {"ensemble_every": 2, "checks_every": 3}
    return Robustness(Linf(0.05), **{**dear, "radii": [0], "images": 6, "on_error": "raise", **SCALE, **how})


def test_the_dear_parts_are_done_every_so_many_looks_and_at_the_last(tmp_path: Path, cheap):
    somebody.quiet(tmp_path, watched(), max_epochs=5).fit(
        somebody.Theirs(), somebody.loader(), somebody.loader(9)
    )
    steps = steps_of(tmp_path)
    assert steps["Robustness/clean"] == steps["Robustness/PGD-20"] == [0, 3, 6, 9, 12, 15]
    assert steps["Robustness/ensemble"] == [6, 12, 15]
    assert steps["Robustness/failed checks"] == [9, 15]


def test_looks_are_counted_not_epochs(tmp_path: Path, cheap):
    trainer = somebody.quiet(tmp_path, watched(every=2), max_epochs=8)
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    assert steps_of(tmp_path)["Robustness/ensemble"] == [12, 24]


def test_a_resumed_run_goes_on_counting(tmp_path: Path, cheap):
    model, data = somebody.Theirs(), (somebody.loader(), somebody.loader(9))

    class Stops(somebody.pl.Callback):
        def on_train_epoch_end(self, trainer, *_):
            trainer.should_stop = trainer.current_epoch == 0

    trainer = somebody.quiet(tmp_path / "one", watched(), Stops(), max_epochs=9)
    trainer.fit(model, *data)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    again = somebody.quiet(tmp_path / "two", watched(), max_epochs=5)
    again.fit(somebody.Theirs(), *data, ckpt_path=tmp_path / "after.ckpt", weights_only=False)
    assert steps_of(tmp_path / "two")["Robustness/ensemble"] == [6, 12, 15]


def test_none_of_the_dear_parts_if_so_asked(tmp_path: Path):
    probe = watched(ensemble_every=None, curve_every=None, checks_every=None)
    somebody.quiet(tmp_path, probe).fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    assert (
        not {"Robustness/ensemble", "Robustness/failed checks", "Robustness/at radius 0.05"}
        & steps_of(tmp_path).keys()
    )


@pytest.mark.parametrize("probe", [AdversarialExamples, Robustness])
def test_they_look_while_lightning_validates(probe, tmp_path: Path, cheap):
    how = {"ensemble_every": 3} if probe is Robustness else {}
    trainer = somebody.quiet(
        tmp_path,
        probe(Linf(0.05), images=6, on_error="raise", **how, **SCALE),
        SaliencyAlignment(on_error="raise", **SCALE),
        logger=TensorBoardLogger(tmp_path, "", ""),
    )
    trainer.validate(somebody.Theirs(), somebody.loader(9), verbose=False)
    tags = {tag for tag, _ in somebody.images(tmp_path)}
    assert tags == {"SaliencyAlignment", "Robustness/curve" if probe is Robustness else "AdversarialExamples"}
    assert ("Robustness/ensemble" in steps_of(tmp_path)) is (probe is Robustness)


# alignment


def test_the_means_are_those_of_the_images_and_of_each_class():
    given = sample()
    seen, each = numbers(looked(SaliencyAlignment(), given)), alignment(Linear(), given.images)
    assert seen["alignment"] == pytest.approx(float(each.length.mean()))
    assert seen["cosine"] == pytest.approx(float(each.cosine.mean()))
    for label in (0, 1):
        own = each.length[given.labels == label]
        assert seen[f"alignment of class {label}"] == pytest.approx(float(own.mean()))


def test_without_labels_classes_are_those_predicted():
    labelled, bare = (numbers(looked(SaliencyAlignment(), sample(labels=labels))) for labels in (True, False))
    assert labelled == bare


@pytest.mark.parametrize(("count", "shown", "strips"), [(150, 8, 8), (150, 1, 1), (3, 8, 3), (65, 65, 65)])
def test_so_many_images_are_shown_however_many_chunks_there_are(count, shown, strips):
    given, probe = sample(count), SaliencyAlignment(shown=shown)
    with frozen_eval(Linear()) as own:
        seen = probe.observe(own, given, probe.subjects(own, given))
    assert sum(len(one.strips) for one in seen.values()) == strips


# bad wishes


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Robustness(Linf(0.1), ensemble_every=0), "ensemble_every=0"),
        (lambda: Robustness(Linf(0.1), checks_every=-1), "checks_every=-1"),
        (lambda: Robustness(Linf(0.1), checked=0), "checked=0"),
        (lambda: Robustness(Linf(0.1), attacks={}), "no attacks; wanted at least one"),
        (lambda: Robustness(Linf(0.1), radii=["wide"]), "radius='wide'"),
        (lambda: Robustness(Linf(0.1), radii=[-1]), "radius=-1"),
        (lambda: Robustness(Linf(0.1), radii="8/255"), "radii='8/255'; wanted several"),
        (lambda: SaliencyAlignment(shown=0), "shown=0"),
    ],
)
def test_a_wrong_wish_is_told_at_once(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.parametrize(
    ("probe", "given", "network", "told"),
    [
        (AdversarialExamples(Linf(0.1)), sample(2), Probabilities(), "returns probabilities"),
        (AdversarialExamples(Linf(0.1, bounds=(0, 0.3))), sample(2), Linear(), "outside the threat's bounds"),
        (Robustness(Linf(0.1, bounds=(0, 0.3))), sample(2), Linear(), "outside the threat's bounds"),
        (Robustness(Linf(0.1)), sample(2, labels=False), Linear(), "nothing to measure by"),
        (SaliencyAlignment(layer="rwo"), sample(2), Linear(), "no layer 'rwo'"),
    ],
)
def test_what_cannot_be_done_is_told_before_training(probe, given, network, told):
    with pytest.raises(ValueError, match=told), frozen_eval(network) as own:
        probe.check(own, given)

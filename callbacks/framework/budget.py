"""A limit on the share of the training time that probes may take."""

from dataclasses import dataclass, field

LAST = 0.45
"""Of the training time, in short runs, for everything that probes have taken when the last one has run."""


@dataclass
class Budget:
    """A share of the training time, divided among the probes that hold it.

    A probe that needs less than an equal part leaves the rest to the others; an expensive one saves its part
    until it can run, so that it runs less often, but does run.

    Args:
        share: of the training time that all probes together may take: 0.1 for a tenth, 1 for as long as the
            training.
        floor: seconds that they may take in addition, so that probes run in very short trainings, too. Their
            runs before training and after the last epoch come on top; in short trainings they are of fewer
            images or classes, or after the last epoch only, so that probes take about a third of the time at
            most; those that do not fit are left out.
    """

    share: float
    floor: float = 0.5
    _cost: dict[str, float] = field(default_factory=dict, init=False)
    _spent: dict[str, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.floor < 0:
            raise ValueError(
                f"a budget of {self.share:g} and a floor of {self.floor:g} seconds; wanted a share of the "
                "training time, 0.1 for a tenth, above 0 and at most 1, and a floor of 0 s or more; "
                "without a budget there is no limit"
            )

    def charge(self, probe: str, seconds: float) -> None:
        """Record the duration of a run of `probe`."""
        self._cost[probe] = seconds
        self._spent[probe] = self._spent.get(probe, 0.0) + seconds

    def expect(self, probe: str, seconds: float) -> None:
        """Reserve the duration of runs of `probe`, which has not run yet."""
        self._cost[probe] = seconds
        self._spent.setdefault(probe, 0.0)

    def cost(self, probe: str) -> float:
        """Seconds of the last run of `probe`, or of the one to expect; 0 if it has had none."""
        return self._cost.get(probe, 0.0)

    def allows(self, probe: str, trained: float) -> bool:
        """Whether one more run of `probe` fits into its part, after `trained` seconds of training.

        The cost of the run after the last epoch is reserved.
        """
        left = self.floor + self.share * trained
        needs = {name: self._spent[name] + 2 * cost for name, cost in self._cost.items()}
        for waiting, name in zip(range(len(needs), 0, -1), sorted(needs, key=needs.__getitem__), strict=True):
            part = min(needs[name], left / waiting)
            left -= part
            if name == probe:
                return needs[name] <= part
        return True

"""Sums and second moments of features: means, covariances and class means of a stream of images."""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.accumulators import Sums


class Moments(Sums):
    """Number, sums and second moments of features, in float64: means, covariances, CKA, class means.

    A mean far from the origin costs precision: with the mean 10^k times the spread, covariances lose 2k
    digits and CKA 4k. An `origin` near the mean avoids that.

    Args:
        pairs: layers whose products are summed too, each as a matrix of one by the other; of a layer with
            itself for its covariances.
        classes: how many classes there are, for sums by class; none without it.
        origin: an offset subtracted from the features of a layer before they are summed; the same in all
            processes.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[str, str]] = (),
        *,
        classes: int = 0,
        origin: Mapping[str, Float[Tensor, "_"]] | None = None,
    ):
        super().__init__()
        self.pairs, self.classes, self.origin = list(pairs), classes, dict(origin or {})

    def update(
        self,
        ids: Int[Tensor, "n"],
        values: Mapping[str, Float[Tensor, "n _"]],
        labels: Int[Tensor, "n"] | None = None,
    ) -> None:
        """Add the features of images, by layer, as `stream` yields them.

        Raises:
            ValueError: a layer of a pair is not there, labels are missing or too large, or features are not
                finite.
        """
        if missing := {name for pair in self.pairs for name in pair} - values.keys():
            raise ValueError(f"no features of {', '.join(sorted(missing))}; there are {', '.join(values)}")
        if self.classes and labels is None:
            raise ValueError("no labels; wanted the number of its class for each image")
        if self.classes and labels is not None and not bool(((labels >= 0) & (labels < self.classes)).all()):
            raise ValueError(f"labels up to {int(labels.max())}; wanted 0 to {self.classes - 1}")
        if wrong := [name for name, own in values.items() if not bool(own.isfinite().all())]:
            raise ValueError(f"features of {wrong[0]!r} that are not finite")
        labelled = {} if labels is None or not self.classes else {"labels": labels}
        self._add(ids, {**{f"of/{name}": own for name, own in values.items()}, **labelled})

    def _sums_of(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {
            name.removeprefix("of/"): own.double() for name, own in rows.items() if name.startswith("of/")
        }
        values |= {name: values[name] - self._origin(name, values[name]) for name in self.origin}
        norms = {name: own.square().sum(1) for name, own in values.items()}
        count = torch.tensor(float(len(rows["ids"])), dtype=torch.float64, device=rows["ids"].device)
        sums = {"count": count}
        for name, own in values.items():
            sums |= {f"sum/{name}": own.sum(0), f"norm/{name}": norms[name].sum()}
        for one, other in self.pairs:
            sums |= {
                f"product/{one}/{other}": values[one].T @ values[other],
                f"by norm/{one}/{other}": norms[other] @ values[one],
                f"norm by/{one}/{other}": norms[one] @ values[other],
                f"norms/{one}/{other}": norms[one] @ norms[other],
            }
        if self.classes:
            sums["class count"] = torch.bincount(rows["labels"], minlength=self.classes).double()
            for name, own in values.items():
                empty = own.new_zeros(self.classes, own.shape[1])
                sums[f"class sum/{name}"] = empty.index_add(0, rows["labels"], own)
        return sums

    @property
    def count(self) -> int:
        """How many images."""
        return int(self.sums["count"]) if self.sums else 0

    def mean(self, name: str) -> Float[Tensor, "d"]:
        """The mean of a layer's features."""
        mean = self._mean(name)
        return mean + self._origin(name, mean)

    def covariance(self, one: str, other: str | None = None) -> Float[Tensor, "p q"]:
        """The covariances of the features of a pair of layers, or of one; divided by the number of images."""
        other = one if other is None else other
        products = self.sums[f"product/{one}/{other}"] / self.sums["count"]
        return products - torch.outer(self._mean(one), self._mean(other))

    def class_means(self, name: str) -> Float[Tensor, "k d"]:
        """The mean of a layer's features over the images of each class; NaN for a class without images."""
        means = self.sums[f"class sum/{name}"] / self.sums["class count"][:, None]
        return means + self._origin(name, means)

    def _mean(self, name: str) -> Float[Tensor, "d"]:
        return self.sums[f"sum/{name}"] / self.sums["count"]

    def _origin(self, name: str, like: Tensor) -> Tensor | float:
        return self.origin[name].to(like) if name in self.origin else 0.0

"""Attributes of a network that are kept outside it: what it holds itself is put back after each loan."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary


class Outside:
    """Such an attribute, which begins as what `make` makes: `passes = Outside(int)`."""

    def __init__(self, make: Callable[[], Any]):
        self.make, self.values = make, WeakKeyDictionary()

    def __get__(self, network: Any, owner: type | None = None) -> Any:
        return self if network is None else self.values.setdefault(network, self.make())

    def __set__(self, network: Any, value: Any) -> None:
        self.values[network] = value

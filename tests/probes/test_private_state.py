"""Private state of modules and data sets (no parameters, no buffers) is restored."""

import array
import ctypes
import functools
import itertools
import multiprocessing
import queue
import random
import sqlite3
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from fulgurite.probes.private_state import restored

SHARED = np.random.default_rng(0)
CALLS = 0


class Holds:
    """An object with one attribute, and what uses it."""

    def __init__(self, state, use):
        self.state, self.use = state, use


class Slotted:
    __slots__ = ("count",)

    def __init__(self):
        self.count = 0

    def up(self):
        self.count += 1
        return self.count


def drawn(generator):
    return lambda: float(generator.random())


def counted():
    count = 0

    def call():
        nonlocal count
        count += 1
        return count

    return call


def from_globals():
    global CALLS
    CALLS += 1
    return CALLS, float(SHARED.random())


def with_attribute():
    with_attribute.calls = getattr(with_attribute, "calls", 0) + 1
    return with_attribute.calls


def cached():
    """A function that answers at random once, and the same ever after."""
    return functools.lru_cache(functools.partial(drawn(np.random.default_rng(4))))


def up(counter):
    counter[0] += 1
    return counter[0]


def up_shared(counter):
    with counter.get_lock():
        counter.value += 1
    return counter.value


def legacy() -> np.random.RandomState:
    return np.random.RandomState(3)


STATES = {
    "torch generator": lambda: Holds(torch.Generator(), lambda g: float(torch.rand(1, generator=g)[0])),
    "numpy generator": lambda: Holds(np.random.default_rng(1), lambda g: float(g.random())),
    "numpy bits": lambda: Holds(np.random.PCG64(1), lambda g: int(g.random_raw())),
    "numpy legacy": lambda: Holds(legacy(), lambda g: float(g.normal())),
    "python generator": lambda: Holds(random.Random(1), lambda g: g.gauss(0, 1)),
    "list": lambda: Holds([], lambda s: s.append(1) or len(s)),
    "dict": lambda: Holds({}, lambda s: s.update({len(s): 1}) or len(s)),
    "nested": lambda: Holds({"a": [{"b": []}]}, lambda s: s["a"][0]["b"].append(1) or len(s["a"][0]["b"])),
    "counter": lambda: Holds(Counter(), lambda s: s.update("a") or s["a"]),
    "default dict": lambda: Holds(defaultdict(list), lambda s: s["a"].append(1) or len(s["a"])),
    "ordered": lambda: Holds(OrderedDict(a=1, b=2), lambda s: s.move_to_end("a") or next(iter(s))),
    "set": lambda: Holds({1}, lambda s: s.add(len(s) + 1) or len(s)),
    "deque": lambda: Holds(deque([1, 2, 3], maxlen=3), lambda s: s.rotate() or s[0]),
    "tensor": lambda: Holds(torch.zeros(3), lambda s: float(s.add_(1)[0])),
    "array": lambda: Holds(np.zeros(3), lambda s: float(np.add(s, 1, out=s)[0])),
    "objects": lambda: Holds(np.array([[1], [2, 3]], dtype=object), lambda s: s[0].append(1) or len(s[0])),
    "slots": lambda: Holds(Slotted(), lambda s: s.up()),
    "closure": lambda: Holds(counted(), lambda call: call()),
    "generator in a closure": lambda: Holds(drawn(np.random.default_rng(2)), lambda call: call()),
    "partial": lambda: Holds(functools.partial(drawn, random.Random(3)), lambda call: call()()),
    "bound method": lambda: Holds(Slotted().up, lambda call: call()),
    "function attribute": lambda: Holds(with_attribute, lambda call: call()),
    "globals": lambda: Holds(from_globals, lambda call: call()),
    "two thousand lists": lambda: Holds([[0] for _ in range(2000)], lambda s: up(s[7])),
    "array of bytes": lambda: Holds(bytearray(4), up),
    "array of numbers": lambda: Holds(array.array("i", [0]), up),
    "ctypes": lambda: Holds((ctypes.c_int * 2)(), up),
    "shared number": lambda: Holds([multiprocessing.Value("i")], lambda s: up_shared(s[0])),
    "cache of a function": lambda: Holds(cached(), lambda call: call()),
    "a thousand generators": lambda: Holds([random.Random(n) for n in range(1000)], lambda s: s[7].random()),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
def test_what_is_used_in_the_block_is_as_before(kind: str):
    held = STATES[kind]()
    with restored(held, code=True) as lost:
        once = held.use(held.state)
        held.use(held.state)
        held.state, held.new = None, 1
    assert not lost
    assert not hasattr(held, "new")
    assert held.use(held.state) == once


def test_it_is_as_before_after_an_exception_too():
    held = STATES["numpy generator"]()
    generator, before = held.state, held.state.bit_generator.state
    with pytest.raises(ZeroDivisionError), restored(held):
        held.state = held.use(held.state) / 0
    assert held.state is generator
    assert generator.bit_generator.state == before


def test_class_attributes_and_generators_of_a_module_are_restored_for_data(tmp_path: Path):
    class Data(Dataset):
        reads = 0

        def __getitem__(self, index):
            type(self).reads += 1
            return self.reads, float(SHARED.random())

    data = Data()
    with restored(data, code=True):
        once = data[0]
    assert data[0] == once


def test_an_open_file_is_wound_back(tmp_path: Path):
    (tmp_path / "lines").write_text("first\nsecond\n")
    with (tmp_path / "lines").open() as file:
        held = Holds(file, None)
        with restored(held):
            assert file.readline() == "first\n"
        assert file.readline() == "first\n"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (lambda: (n for n in range(3)), "Holds.state is a generator, which cannot be wound back"),
        (lambda: itertools.count(), "Holds.state is a count,"),
        (lambda: iter([1, 2]), "Holds.state is a list_iterator,"),
    ],
)
def test_what_cannot_be_restored_is_named(state, words: str):
    with restored(Holds(state(), None)) as lost:
        pass
    assert words in lost[0]


def written_in(held):
    held.state.execute("create table visits (n)")
    held.state.execute("insert into visits values (1)")


def visited(held):
    held.state[3] += 1


def asked(held):
    held.state(2)


def known():
    ask = functools.lru_cache(lambda n: n)
    ask(1)
    return ask


@pytest.mark.parametrize(
    ("state", "use", "words"),
    [
        (lambda: sqlite3.connect(":memory:"), written_in, "Holds.state, a database, was written to"),
        (lambda: np.zeros(300_000), visited, "Holds.state, an array too large to copy, was written to"),
        (known, asked, "Holds.state, a function with a cache, has kept new answers"),
    ],
)
def test_what_cannot_be_put_back_is_named_if_it_has_changed(state, use, words: str):
    held = Holds(state(), None)
    with restored(held, code=True) as lost:
        pass
    assert lost == []
    with restored(held, code=True) as lost:
        use(held)
    assert lost == [words]


def test_data_are_shared_and_never_copied(monkeypatch: pytest.MonkeyPatch):
    copied = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(
        torch.Tensor, "clone", lambda self, **kw: copied.append(self.numel()) or clone(self, **kw)
    )
    many = [torch.zeros(2**17) for _ in range(900)]  # half a megabyte each
    data = Holds([torch.zeros(1).expand(10**10), np.broadcast_to(np.zeros(1), 10**10), *range(5000)], None)
    with restored(data, Holds(torch.zeros(1).expand(10**10), None), Holds(many, None)) as lost:
        pass
    assert sum(copied) <= 2**24
    assert not lost
    large = torch.zeros(2**19)
    with restored(Holds(large, None)) as lost:
        large.add_(1)
    assert lost == ["Holds.state, a tensor too large to copy, was written to"]


def test_machinery_at_work_is_left_alone():
    class Thread(threading.Thread):
        count = 0

    class Prefetches:
        def __init__(self):
            self.lock, self.done = threading.Lock(), []
            self.rng = random.Random(1)

    thread, waiting, prefetches = Thread(), queue.Queue(), Prefetches()
    with restored(Holds([thread, waiting, prefetches], None)):
        thread.mine = 1
        waiting.put(1)
        prefetches.done.append(1)
        drawn = prefetches.rng.random()
    assert thread.mine == waiting.get_nowait() == 1
    assert prefetches.done == [1]
    assert prefetches.rng.random() == drawn

"""Compositional pattern-producing networks that evolve: pictures as small graphs that grow by mutation."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fulgurite.probes.synthesis.canvas import Canvas

INPUTS = 4  # x, y, the distance from the middle, 1
FUNCTIONS = (torch.sin, torch.sigmoid, lambda values: (-values.square()).exp(), lambda values: values)
LARGEST = 10.0  # weight
AT_ONCE = 2**25  # values: 128 MiB


class EvolvedCPPN(Canvas):
    """Images whose pixels are the outputs of graphs of simple functions at their positions, one for each.

    Nodes are sines, sigmoids, Gaussians and linear functions of weighted sums; they read the coordinates, the
    distance from the middle, a constant and nodes before them. A colour image has outputs for hue, saturation
    and lightness, any other one for each channel. Graphs begin with the outputs alone and grow by `mutate`.
    Stanley 2007; rates of Nguyen et al. 2015, arxiv.org/abs/1412.1897.

    Args:
        shape: channels, height and width.
        seeds: of each graph's first weights.
        hidden: how many nodes a graph can have besides its outputs.
    """

    positions: Tensor

    @torch.inference_mode(False)
    def __init__(self, shape: tuple[int, int, int], seeds: Sequence[int], *, hidden: int = 16):
        super().__init__()
        self.shape, self.hidden = shape, hidden
        outputs, count = shape[0], len(seeds)
        nodes, sources = hidden + outputs, INPUTS + hidden
        weights, functions = torch.zeros(count, nodes, sources), torch.zeros(count, nodes)
        for own, kinds, seed in zip(weights, functions, seeds, strict=True):
            draws = torch.Generator().manual_seed(seed)
            own[hidden:, :INPUTS] = 3 * torch.randn(outputs, INPUTS, generator=draws)
            kinds.copy_(torch.randint(len(FUNCTIONS), [nodes], generator=draws))
        # a weight of 0 is not a connection; all are floats, so that canvases can take and put them
        self.weights = nn.Parameter(weights)
        self.functions = nn.Parameter(functions)
        self.active = nn.Parameter(torch.zeros(count, hidden))
        # node j reads the inputs and the nodes before it; outputs read all nodes
        self.register_buffer("allowed", torch.ones(nodes, sources).tril(INPUTS - 1).bool())
        self.allowed[hidden:] = True
        self.register_buffer("positions", _positions(shape[1], shape[2]))

    allowed: Tensor

    @torch.no_grad()
    def forward(self) -> Float[Tensor, "n c h w"]:
        """The graphs' outputs; outside [0, 1] they are mirrored back, hues go round."""
        count, sources = len(self.weights), self.weights.shape[2]
        few = max(1, AT_ONCE // (sources * self.positions.shape[1]))  # graphs
        parts = [self._outputs(slice(start, start + few)) for start in range(0, count, few)]
        made = torch.cat(parts).unflatten(2, self.shape[1:])
        return _rgb(made) if self.shape[0] == 3 else _mirrored(made)

    def _outputs(self, rows: slice) -> Float[Tensor, "m c p"]:
        weights, functions, active = self.weights[rows], self.functions[rows], self.active[rows]
        values = self.positions.new_zeros(len(weights), weights.shape[2], self.positions.shape[1])
        values[:, :INPUTS] = self.positions
        for node in range(self.hidden):
            if active[:, node].any():
                values[:, INPUTS + node] = _node(weights[:, node], functions[:, node], values)
        outputs = range(self.hidden, weights.shape[1])
        return torch.stack([_node(weights[:, k], functions[:, k], values) for k in outputs], 1)

    @torch.no_grad()
    def mutate(self, draws: torch.Generator, *, rate: float = 0.1, eta: float = 15.0) -> None:
        """Change each graph: connections come (one in two) and go (.3), nodes come (.5) and go (.2).

        Weights change with a probability of `rate` by polynomial mutation.
        """
        count = len(self.weights)

        def chance(probability: float) -> Bool[Tensor, "n"]:
            return torch.rand(count, generator=draws) < probability

        self._delete_node(chance(0.2), draws)
        self._add_node(chance(0.5), draws)
        self._change_connection(chance(0.3), self.weights != 0, 0.0, draws)
        readable = torch.cat([torch.ones(count, INPUTS), self.active], 1).bool()
        reading = torch.cat([self.active, torch.ones(count, self.shape[0])], 1).bool()
        free = self.allowed & readable[:, None] & reading[:, :, None] & (self.weights == 0)
        self._change_connection(chance(0.5), free, 2 * torch.randn(count, generator=draws), draws)
        moved = mutated(self.weights, draws, rate=rate, eta=eta, low=-LARGEST, high=LARGEST)
        self.weights.copy_(torch.where(self.weights != 0, moved, 0))

    def _change_connection(
        self, which: Tensor, among: Tensor, to: float | Tensor, draws: torch.Generator
    ) -> None:
        """One of these connections of each of these graphs gets another weight, where there is one."""
        place, found = _one_of(among.flatten(1), draws)
        rows = (which & found).nonzero()[:, 0]
        flat = self.weights.data.flatten(1)
        flat[rows, place[rows]] = to[rows] if isinstance(to, Tensor) else to
        self.weights.copy_(flat.view_as(self.weights))

    def _add_node(self, which: Tensor, draws: torch.Generator) -> None:
        """A node comes between two that are connected, if there is a place for it in their order."""
        place, found = _one_of((self.weights != 0).flatten(1), draws)
        to, source = place // self.weights.shape[2], place % self.weights.shape[2]
        numbers = torch.arange(self.hidden)
        between = (numbers >= source[:, None] - INPUTS + 1) & (numbers < to[:, None]) & (self.active == 0)
        node, room = _one_of(between, draws)
        kinds = torch.randint(len(FUNCTIONS), [len(which)], generator=draws).float()
        rows = (which & found & room).nonzero()[:, 0]
        to, source, node = to[rows], source[rows], node[rows]
        self.active[rows, node] = 1
        self.functions[rows, node] = kinds[rows]
        self.weights[rows, node, source] = 1
        self.weights[rows, to, INPUTS + node] = self.weights[rows, to, source]
        self.weights[rows, to, source] = 0

    def _delete_node(self, which: Tensor, draws: torch.Generator) -> None:
        node, found = _one_of(self.active.bool(), draws)
        rows = (which & found).nonzero()[:, 0]
        node = node[rows]
        self.active[rows, node] = 0
        self.weights[rows, node] = 0
        self.weights[rows, :, INPUTS + node] = 0


def _node(
    weights: Float[Tensor, "m s"], functions: Float[Tensor, "m"], values: Float[Tensor, "m s p"]
) -> Float[Tensor, "m p"]:
    """The output of one node of each graph, from the values before it."""
    sums = (weights[:, None] @ values)[:, 0]
    answers = torch.empty_like(sums)
    for number, function in enumerate(FUNCTIONS):
        of_this_kind = functions == number
        answers[of_this_kind] = function(sums[of_this_kind])
    return answers


def mutated(
    values: Float[Tensor, "n ..."],
    draws: torch.Generator,
    *,
    rate: float,
    eta: float = 15.0,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Tensor, "n ..."]:
    """Polynomial mutation of a share of the values; the larger `eta`, the nearer they stay.

    Deb & Agrawal 1995.
    """
    step = 2 * torch.rand(values.shape, generator=draws)
    step = torch.where(step < 1, step ** (1 / (eta + 1)) - 1, 1 - (2 - step) ** (1 / (eta + 1)))
    change = step * (torch.rand(values.shape, generator=draws) < rate)
    return (values + (high - low) * change).clamp(low, high)


def _one_of(among: Bool[Tensor, "n k"], draws: torch.Generator) -> tuple[Tensor, Bool[Tensor, "n"]]:
    """The number of one that is true in each row, at random, and whether there is one."""
    chances = torch.where(among, torch.rand(among.shape, generator=draws), -1.0)
    return chances.argmax(1), among.any(1)


def _mirrored(values: Tensor) -> Tensor:
    """Values outside [0, 1], mirrored back."""
    return 1 - (values.remainder(2) - 1).abs()


def _rgb(made: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Of hue, saturation and lightness."""
    hue, saturation, lightness = made[:, 0].remainder(1), _mirrored(made[:, 1]), _mirrored(made[:, 2])
    reach = saturation * torch.minimum(lightness, 1 - lightness)
    parts = []
    for offset in (0, 8, 4):
        place = (offset + 12 * hue).remainder(12)
        parts.append(lightness - reach * torch.minimum(place - 3, 9 - place).clamp(-1, 1))
    return torch.stack(parts, 1).clamp(0, 1)


def _positions(height: int, width: int) -> Float[Tensor, "4 hw"]:
    """Coordinates in [-1, 1] on the longer side, the distance from the middle, and 1."""
    sides = [(2 * torch.arange(size) + 1 - size) / max(height, width) for size in (height, width)]
    y, x = torch.meshgrid(*sides, indexing="ij")
    return torch.stack([x, y, torch.hypot(x, y), torch.ones_like(x)]).flatten(1)

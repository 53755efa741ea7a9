"""Attention rollout: the product of a transformer's attention over its layers (Abnar & Zuidema 2020)."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fulgurite.probes.attribution.gradient import checked
from fulgurite.probes.channels import at_least_float32
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import Objectives, as_list, squeeze_single
from fulgurite.probes.record import bare
from fulgurite.probes.tokens import TokenGrid, token_grid

_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)
_SOFTMAX = {torch.softmax, F.softmax, Tensor.softmax}


def attention_rollout(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objectives, *, enlarge: bool = True
) -> Float[Tensor, "*k n 1 u v"]:
    """How much each patch reaches the class token through attention, at least 0; not by objective.

    The product of all layers' attention, averaged over heads, each with half an identity for the residual
    connection: A_L ... A_1, where A = (attention + 1) / 2. The class token's row of it, without the class
    token, sums to at most 1. Where the network averages its patches, it is the average of their rows.
    It is the same map for any objective, as attention does not depend on it. Abnar and Zuidema 2020,
    arxiv.org/abs/2005.00928. Costs one forward pass, and a product of [tokens, tokens] for each layer.

    Args:
        network: maps images to logits; a vision transformer whose tokens all attend to each other, such as
            ViT or DeiT, of timm, torchvision or your own (see `token_grid`).
        images: in [0, 1].
        objective: only counted: there is a map for each.
        enlarge: bilinearly, to the size of the images; else a map has the size of the grid of patches.

    Raises:
        ValueError: the network has no attention among the tokens of a grid, as convolutional networks.
    """
    images = checked(images)
    with frozen_eval(network) as net, torch.no_grad(), _Rollout(net, len(images)) as found:
        net(images)
    if found.product is None or found.grid is None or found.others:
        raise ValueError(
            f"{type(bare(network)).__name__} has no attention, or some that is not among all tokens of an "
            "image: wanted a vision transformer such as ViT or DeiT; for others there is grad_cam"
        )
    reached = _rows(net, found.product, found.grid)
    maps = found.grid.maps(reached[..., None])  # [n, 1, rows, columns]
    if enlarge:
        maps = F.interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)
    return squeeze_single(maps.expand(len(as_list(objective)), *maps.shape), objective)


def _rows(network: nn.Module, product: Float[Tensor, "n t t"], grid: TokenGrid) -> Float[Tensor, "n t"]:
    """What reaches the token that is classified: the first, or the average of the patches."""
    pools = [
        pool for part in network.modules() if isinstance(pool := getattr(part, "global_pool", None), str)
    ]
    if grid.prefix and (not pools or pools[0] == "token"):
        return product[:, 0]
    return product[:, grid.prefix :].mean(1)


class _Rollout(TorchFunctionMode):
    """Within the block, multiplies the attention of each layer that runs to the product of those before."""

    def __init__(self, network: nn.Module, images: int):
        super().__init__()
        self.network, self.images = network, images
        self.product: Tensor | None = None
        self.grid: TokenGrid | None = None
        self.others = False  # whether some attention is not among all tokens of an image

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        out = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self._add_fused(*args, **kwargs)
        elif func is F.multi_head_attention_forward:  # of nn.MultiheadAttention; what runs inside is not seen
            call = _MULTI_HEAD.bind(*args, **kwargs).arguments
            self._add(func(**{**call, "need_weights": True, "average_attn_weights": False})[1])
        elif func in _SOFTMAX and out.dim() == 4 and (kwargs.get("dim", [*args, None][1]) in (-1, 3)):
            self._add(out)
        return out

    def _add_fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **_: object,
    ) -> None:
        del value, dropout_p
        self.others |= is_causal
        query, key = at_least_float32(query), at_least_float32(key)
        weights = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            weights = weights.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            weights = weights + attn_mask
        with torch._C.DisableTorchFunction():
            self._add(weights.softmax(-1))

    def _add(self, attention: Tensor) -> None:
        count, _, tokens, keys = attention.shape if attention.dim() == 4 else (0, 0, 0, 0)
        grid = (
            token_grid(self.network, (count, tokens, 1)) if tokens == keys and count == self.images else None
        )
        # windows, pooled tokens, and attention of a class token alone
        self.others |= grid is None or (self.grid is not None and grid != self.grid)
        if self.others:
            return
        self.grid = grid
        layer = at_least_float32(attention).mean(1)
        layer = (layer + torch.eye(tokens, dtype=layer.dtype, device=layer.device)) / 2
        self.product = layer if self.product is None else layer @ self.product

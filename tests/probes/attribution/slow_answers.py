"""Each attribution method once more, slower and from its formula, in the precision of network and images.

One image at a time and one altered copy at a time; the class score of the network's output alone is asked.
"""

import numpy as np
import torch
import torch.nn.functional as F
from dispatch_oracle import by_dispatch
from torch import Tensor, nn

from fulgurite.probes.attribution.lime import _sets, superpixels
from fulgurite.probes.attribution.rise import _masks
from fulgurite.probes.counter_random import normal


def slope(network: nn.Module, image: Tensor, place: int) -> Tensor:
    """The gradient of the logit at `place` by the image."""
    pixels = image.clone().requires_grad_()
    return torch.autograd.grad(network(pixels[None])[0, place], pixels)[0]


def smoothgrad(network, image, place, draws):
    noise = normal(0, torch.arange(draws), *image.shape).to(image)
    return sum(slope(network, image + 0.15 * each, place) for each in noise) / draws


def integrated_gradients(network, image, place, steps):
    points, weights = np.polynomial.legendre.leggauss(steps)
    pairs = zip(points.tolist(), weights.tolist(), strict=True)
    return image * sum(weight / 2 * slope(network, (point + 1) / 2 * image, place) for point, weight in pairs)


def rules(relu):
    return lambda network, image, place: by_dispatch(network, image[None], place, relu=relu)[0]


def maps_and_slopes(network, image, place, layer=6):
    """The output of the network's first `layer` parts, and the logit's gradient by it."""
    maps = network[:layer](image[None]).detach().requires_grad_()
    return maps.detach()[0], torch.autograd.grad(network[layer:](maps)[0, place], maps)[0][0]


def enlarged(maps: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(maps[None, None], image.shape[1:], mode="bilinear", align_corners=False)[0]


def cam(network, image, place):
    maps, _ = maps_and_slopes(network, image, place)
    return enlarged(torch.einsum("d,duv->uv", network[-1].weight[place].detach(), maps), image)


def grad_cam(network, image, place):
    maps, slopes = maps_and_slopes(network, image, place)
    return enlarged(torch.einsum("d,duv->uv", slopes.mean((1, 2)), maps), image)


def guided_grad_cam(network, image, place):
    return grad_cam(network, image, place).clamp(min=0) * rules("desalinet")(network, image, place)


def layer_cam(network, image, place):
    maps, slopes = maps_and_slopes(network, image, place)
    return enlarged((slopes.clamp(min=0) * maps).sum(0), image)


def score_cam(network, image, place):
    maps, _ = maps_and_slopes(network, image, place)
    scores = []
    for seen in maps:
        veil = enlarged(seen, image)
        veil = (veil - veil.min()) / (veil.max() - veil.min()).clamp(min=1e-300)
        scores.append(network((veil * image + (1 - veil) * 0.5)[None])[0, place].detach())
    return enlarged(torch.einsum("d,duv->uv", torch.stack(scores).softmax(0), maps), image)


def occlusion(network, image, place, window):
    total, count = torch.zeros_like(image[:1]), torch.zeros_like(image[:1])
    stride = window // 2
    tops, lefts = (range(0, side - window + stride, stride) for side in image.shape[1:])
    for top in tops:
        for left in lefts:
            spot = slice(None), slice(top, top + window), slice(left, left + window)
            hidden = image.clone()
            hidden[spot] = 0.5
            lost = (network(image[None]) - network(hidden[None]))[0, place].detach()
            total[spot] += lost
            count[spot] += 1
    return total / count


def rise(network, image, place, masks, cells):
    veils = _masks(0, torch.arange(masks), cells, 0.5, tuple(image.shape[1:])).to(image)
    scores = [network((veil * image + (1 - veil) * 0.5)[None])[0, place].detach() for veil in veils]
    mean = sum(scores) / masks
    return sum((score - mean) * veil for score, veil in zip(scores, veils, strict=True)) / sum(veils).clamp(
        min=1e-6
    )


def lime(network, image, place, segments, samples):
    regions = superpixels(image[None], count=segments)[0]
    sets = _sets(int(regions.max()) + 1, samples, 0)
    shown = [torch.where(each[regions], image, 0.5) for each in sets]
    answers = torch.stack([network(one[None])[0, place].detach() for one in shown]).double()
    sets = sets.double()
    near = torch.exp(-(1 - sets.mean(1).sqrt()).square() / (2 * 0.25**2))
    # ridge regression with an intercept that is not shrunk
    centred, aims = sets - near @ sets / near.sum(), answers - near @ answers / near.sum()
    ridge = centred.T @ (near[:, None] * centred) + torch.eye(sets.shape[1], dtype=torch.float64)
    return torch.linalg.solve(ridge, centred.T @ (near * aims))[regions][None].to(image)


SLOW = {
    "gradient": slope,
    "saliency": lambda *asked: slope(*asked).abs().amax(0, keepdim=True),
    "input_x_gradient": lambda network, image, place: image * slope(network, image, place),
    "smoothgrad": smoothgrad,
    "integrated_gradients": integrated_gradients,
    "backward_rules": rules("desalinet"),
    "guided_backprop": rules("desalinet"),
    "deconvnet": rules("deconvnet"),
    "cam": cam,
    "grad_cam": grad_cam,
    "guided_grad_cam": guided_grad_cam,
    "layer_cam": layer_cam,
    "score_cam": score_cam,
    "occlusion": occlusion,
    "rise": rise,
    "lime": lime,
}

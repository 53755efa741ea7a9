"""The LightningModule that trains feed-forward style transfer and texture networks."""

import math
from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from fulgurite.models.classifier import warm_cosine
from fulgurite.probes.channels import features
from fulgurite.probes.feature_extractor import Calls, feature_extractor, outputs
from fulgurite.probes.feature_objectives import gram

Batch = Sequence[Tensor]


class Stylizer(pl.LightningModule):
    """Trains a network that maps photographs to a style in one pass, by the losses of style transfer.

    Content is the features of one layer of a second, frozen network, style the Gram matrices of some; both
    losses are relative, as for `style_transfer`: 0 where they are the same. Logs `train/loss`, and of the
    validation images `val/loss`, `val/content loss`, `val/style loss` and, for choosing checkpoints,
    `val/likeness`, which is minus the loss. Johnson et al. 2016, arxiv.org/abs/1603.08155.

    Args:
        network: maps images in [0, 1] to images in [0, 1]: `StylizerNetwork`, or `TextureNetwork`.
        judge: the second network; it is neither trained nor saved.
        style: an image of the style, of any size.
        content_layer: of the judge, by path; "" leaves the content out, as for textures.
        style_layers: of the judge, by path.
        weight: of the style loss, the content loss having 1.
        tv: of the mean squared difference of neighbouring pixels.
        lr: of Adam, the highest: it rises over the first tenth of the training, then falls along a cosine.

    Raises:
        ValueError: no style layers, or no such layer.
    """

    def __init__(
        self,
        network: nn.Module,
        judge: nn.Module,
        style: Float[Tensor, "1 c h w"],
        *,
        content_layer: str,
        style_layers: Sequence[str],
        weight: float = 10.0,
        tv: float = 1.0,
        lr: float = 1e-3,
    ):
        super().__init__()
        if not style_layers or min(weight, tv) < 0 or lr <= 0:
            raise ValueError(
                f"style_layers={list(style_layers)}, weight={weight:g}, tv={tv:g}, lr={lr:g}; wanted at "
                "least one layer, no negative weights and a positive rate"
            )
        self.network = network
        self.content_layer, self.style_layers = content_layer, list(style_layers)
        self.weight, self.tv, self.lr = weight, tv, lr
        judge.eval().requires_grad_(False)
        self._judge = (judge,)  # in a tuple, so that it is not a part of the model: not saved, not trained
        codes = outputs(judge, style, self.style_layers)
        for number, layer in enumerate(self.style_layers):
            self.register_buffer(f"gram{number}", gram(codes[layer]))
        self._calls, self._content_calls = Calls(), Calls()

    @property
    def network_to_probe(self) -> nn.Module:
        """The network that is trained."""
        return self.network

    @property
    def judge(self) -> nn.Module:
        """The second network, whose features are content and style."""
        return self._judge[0]

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """The images in the style."""
        return self.network(images)

    def losses(
        self, images: Float[Tensor, "n 3 h w"], made: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """The content loss and the style loss of each image."""
        judge = self.judge.to(images.device)
        own = {self.content_layer} - {""}
        with feature_extractor(judge, {*self.style_layers} | own, counts=self._calls) as extract:
            seen = extract(made)
        now = {layer: features(seen, layer) for layer in {*self.style_layers} | own}
        content = made.new_zeros(len(made))
        for layer in own:  # only as far as the content layer
            with feature_extractor(judge, own, counts=self._content_calls) as extract, torch.no_grad():
                wanted = features(extract(images), layer)
            content = _relative(now[layer], wanted)
        style = [
            _relative(gram(now[layer]), self.get_buffer(f"gram{number}"))
            for number, layer in enumerate(self.style_layers)
        ]
        return content, torch.stack(style).mean(0)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """The mean loss of a batch."""
        loss = self._loss(batch, "train")
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Logs the losses."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Logs the losses."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, part: str) -> None:
        loss = self._loss(batch, part)
        self.log_dict(
            {f"{part}/loss": loss, f"{part}/likeness": -loss}, sync_dist=True, batch_size=len(batch[0])
        )

    def _loss(self, batch: Batch, part: str) -> Tensor:
        images = batch[0]
        made = self.network(images)
        content, style = self.losses(images, made)
        if part != "train":
            own = {f"{part}/content loss": content.mean(), f"{part}/style loss": style.mean()}
            self.log_dict(own, sync_dist=True, batch_size=len(images))
        steps = made.diff(dim=2).square().mean() + made.diff(dim=3).square().mean()
        return (content + self.weight * style).mean() + self.tv * steps

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam as in the paper, with warm-up and cosine, unlike the paper."""
        optimizer = torch.optim.Adam(self.network.parameters(), self.lr)
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            return {"optimizer": optimizer}
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, int(steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _relative(found: Float[Tensor, "n ..."], wanted: Float[Tensor, "m ..."]) -> Float[Tensor, "n"]:
    """The squared distance, relative to the squared length of the target."""
    distance = (found - wanted).flatten(1).square().sum(1)
    return distance / wanted.flatten(1).square().sum(1).clamp(min=1e-12)

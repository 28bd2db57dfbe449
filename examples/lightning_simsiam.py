"""SimSiam (Chen and He, 2021) in Lightning, fed by protonce.Loader; needs lightning and torchvision.

python examples/lightning_simsiam.py photos/ --epochs 100 --out encoder.pth

Lightning moves batches to the device, and where it starts several processes (`devices=8`,
`strategy="ddp"`) each loader has its own part of every batch.
"""

import argparse

import lightning
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import protonce


def mlp(*widths, last):
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], last))


class Epochs:
    """A loader whose epochs are counted by Lightning, which also knows where a training goes on.

    By itself each iteration would be the next epoch, and Lightning begins some that it does not use.
    """

    def __init__(self, module, loader):
        self.module, self.loader = module, loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        # Not before the first batch is asked for: a training that goes on learns its epoch late.
        self.loader.set_epoch(self.module.current_epoch)
        yield from self.loader


class SimSiam(lightning.LightningModule):
    def __init__(self, data, arch, image_size, batch_size, lr):
        super().__init__()
        self.save_hyperparameters()
        self.backbone = getattr(torchvision.models, arch)()
        width = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        self.projector = nn.Sequential(mlp(width, width, width, last=width), nn.BatchNorm1d(width))
        self.predictor = mlp(width, width // 4, last=width)

    def train_dataloader(self):
        # Here, as only now each process knows which it is.
        wanted = self.hparams
        return Epochs(self, protonce.Loader(wanted.data, wanted.image_size, wanted.batch_size))

    def training_step(self, batch, _):
        views, _ = batch
        targets = [self.projector(self.backbone(view)) for view in views]
        predicted = [self.predictor(target) for target in targets]
        agreement = [
            F.cosine_similarity(prediction, target.detach()).mean()
            for prediction, target in zip(predicted, reversed(targets))
        ]
        loss = -sum(agreement) / len(agreement)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(
            self.parameters(), self.hparams.lr, momentum=0.9, weight_decay=1e-4
        )
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def main(out, epochs, accelerator, folder, **settings):
    model = SimSiam(**settings)
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator=accelerator, default_root_dir=folder, log_every_n_steps=1
    )
    trainer.fit(model)
    if trainer.is_global_zero:
        torch.save(model.backbone.state_dict(), out)
    return trainer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("data", help="a folder, .tar, .zip, .parquet or list of images")
    parser.add_argument("--out", default="encoder.pth")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--accelerator", default="auto", help="cpu, gpu, mps, …")
    parser.add_argument("--folder", default=".", help="where Lightning writes logs and checkpoints")
    main(**vars(parser.parse_args()))

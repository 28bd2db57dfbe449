"""MoCo v2 of lightly's parts (heads, loss, memory bank), fed by protonce.Loader; needs lightly.

lightly's own loop, in which the loader takes the place of LightlyDataset, MoCoV2Transform and
DataLoader.

python examples/lightly_moco.py photos/ --epochs 100 --out encoder.pth
"""

import argparse
import copy

import torch
import torchvision
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum

import protonce


class MoCo(torch.nn.Module):
    def __init__(self, arch):
        super().__init__()
        self.backbone = getattr(torchvision.models, arch)()
        width = self.backbone.fc.in_features
        self.backbone.fc = torch.nn.Identity()
        self.head = MoCoProjectionHead(width, width, 128)
        self.momentum_backbone = copy.deepcopy(self.backbone)
        self.momentum_head = copy.deepcopy(self.head)
        deactivate_requires_grad(self.momentum_backbone)
        deactivate_requires_grad(self.momentum_head)

    def forward(self, query):
        return self.head(self.backbone(query))

    @torch.no_grad()
    def keys(self, key, momentum):
        update_momentum(self.backbone, self.momentum_backbone, momentum)
        update_momentum(self.head, self.momentum_head, momentum)
        # Shuffled, as batch norm would otherwise tell which key is whose.
        order = torch.randperm(len(key), device=key.device)
        embeddings = self.momentum_head(self.momentum_backbone(key[order]))
        return embeddings[order.argsort()]


def main(data, out, arch, image_size, batch_size, epochs, lr, queue, momentum, device):
    loader = protonce.Loader(data, image_size, batch_size, pin_memory=device != "cpu")
    model = MoCo(arch).to(device, memory_format=torch.channels_last)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(queue, 128)).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    for epoch in range(epochs):
        for (query, key), _ in loader:
            query, key = (view.to(device, non_blocking=True) for view in (query, key))
            loss = criterion(model(query), model.keys(key, momentum))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: loss {loss.item():.3f}", flush=True)
    torch.save(model.backbone.state_dict(), out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("data", help="a folder, .tar, .zip, .parquet or list of images")
    parser.add_argument("--out", default="encoder.pth")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--queue", type=int, default=16384, help="no more than there are images")
    parser.add_argument("--momentum", type=float, default=0.999)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    main(**vars(parser.parse_args()))

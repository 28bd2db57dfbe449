"""SimCLR (Chen et al., 2020) in 40 lines of PyTorch, fed by protonce.Loader; needs torchvision too.

python examples/simclr.py photos/ --epochs 100 --out encoder.pth
protonce eval knn --weights encoder.pth --train TRAIN --test TEST
"""

import argparse

import torch
import torchvision
from torch.nn import functional as F

import protonce


def nt_xent(first, second, temperature):
    """Each of the 2n views [n, dim] finds the other of its image among the 2n − 1 that are not itself."""
    views = F.normalize(torch.cat([first, second]))
    similarity = (views @ views.T / temperature).fill_diagonal_(float("-inf"))
    return F.cross_entropy(similarity, torch.arange(len(views), device=views.device).roll(len(first)))


def main(data, out, arch, image_size, batch_size, epochs, lr, temperature, device):
    loader = protonce.Loader(data, image_size, batch_size, pin_memory=device != "cpu")
    model = getattr(torchvision.models, arch)()
    width = model.fc.in_features
    model.fc = torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 128)
    )
    model.to(device, memory_format=torch.channels_last)
    # The paper's LARS is for batches of thousands; SGD serves hundreds.
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    for epoch in range(epochs):
        for views, _ in loader:
            first, second = (model(view.to(device, non_blocking=True)) for view in views)
            loss = nt_xent(first, second, temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: loss {loss.item():.3f}", flush=True)
    torch.save(model.state_dict(), out)


if __name__ == "__main__":
    settings = dict(arch="resnet50", image_size=224, batch_size=256, epochs=100, lr=0.05)
    settings.update(out="encoder.pth", temperature=0.1, device="cpu")
    if torch.cuda.is_available():
        settings["device"] = "cuda"
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("data", help="a folder, .tar, .zip, .parquet or list of images")
    for name, value in settings.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, type=type(value), help=" ")
    main(**vars(parser.parse_args()))

"""Computes features with an exported encoder and torchvision; needs torch, torchvision and pillow.

protonce weights export RUN --to torchvision --without-head --out encoder.pth
python examples/embed_torchvision.py encoder.pth IMAGE...
"""

import json
import sys

import torch
import torchvision
from PIL import Image
from torchvision import transforms


def load(path):
    card = json.load(open(path + ".card.json"))
    model = getattr(torchvision.models, card["encoder"]["arch"])()
    model.fc = torch.nn.Identity()
    if card["encoder"]["stem"] == "small":
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = torch.nn.Identity()
    model.load_state_dict(torch.load(path, weights_only=True), strict=True)
    model.eval()
    views = card["views"]
    view = transforms.Compose([
        transforms.Resize(views["eval-resize"]), transforms.CenterCrop(views["image-size"]),
        transforms.ToTensor(), transforms.Normalize(views["mean"], views["std"]),
    ])

    @torch.no_grad()
    def features(names):
        return model(torch.stack([view(Image.open(name).convert("RGB")) for name in names]))

    return features


if __name__ == "__main__":
    features = torch.nn.functional.normalize(load(sys.argv[1])(sys.argv[2:]))
    print(features @ features.T)

"""Writes objects_*.pth: what trainers save beside tensors, by torch and by the trainers' own classes.

Needs torch, numpy, omegaconf and pytorch-lightning:  python objects.py, in this folder
"""

import collections
import datetime
import functools
import pathlib
import random
import typing

import numpy as np
import omegaconf
import pytorch_lightning as lightning
import torch
from pytorch_lightning.utilities.parsing import AttributeDict
from torch import nn


def thirds(*shape):
    count = torch.Size(shape).numel()
    return torch.arange(count, dtype=torch.float32).reshape(shape) / 3


def state():
    return collections.OrderedDict(
        {"weight": thirds(2, 3), "view": thirds(4, 3).t()[1:], "steps": torch.tensor(5)}
    )


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.BatchNorm1d(2))
        self.scale = nn.Parameter(thirds(2))
        self.again = self.body[0]
        self.owner = [self]


def main():
    config = omegaconf.OmegaConf.create(
        {"lr": 0.1, "nested": {"list": [1, {"none": None}]}, "reference": "${lr}"}
    )
    callbacks = {
        lightning.callbacks.ModelCheckpoint: {"best": torch.tensor(1.5)},
        lightning.callbacks.EarlyStopping: {"wait": 3},
    }
    hyper_parameters = AttributeDict(config=config, lr=0.1)
    torch.save(
        {"callbacks": callbacks, "hyper_parameters": hyper_parameters, "state_dict": state()},
        "objects_lightning.pth",
    )

    plain = {
        "path": pathlib.Path("a"), "when": datetime.datetime(2026, 1, 2), "class": nn.ReLU,
        "partial": functools.partial(torch.optim.SGD, lr=0.1), "module": nn.GELU(),
        "typing": typing.Optional[int], "device": torch.device("cpu"), "dtype": torch.float16,
        "set": {1}, "complex": 1j, "range": range(3), "slice": slice(1), "bytes": bytearray(b"x"),
        "deque": collections.deque([1]), "counter": collections.Counter("ab"),
        "none": type(None), "version": torch.__version__, "float": np.float64(3),
        "random": random.Random(0), "generator": np.random.default_rng(0),
        "bits": np.random.default_rng(0).bit_generator.state,
        "complex tensor": torch.zeros(2, dtype=torch.complex64),
        "sparse": torch.eye(2).to_sparse(), "unsigned": torch.zeros(2, dtype=torch.uint16),
        "quantised": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
    }
    torch.save({"settings": plain, "state_dict": state()}, "objects_python.pth")
    torch.save(
        {"settings": plain, "state_dict": state()}, "objects_protocol_4.pth", pickle_protocol=4
    )

    network = Network()
    with torch.no_grad():
        for number, tensor in enumerate([*network.parameters(), *network.buffers()]):
            tensor.copy_(torch.full_like(tensor, number))
    torch.save({"epoch": 1, "model": network}, "objects_module.pth")

    parameter = nn.Parameter(thirds(2, 3))
    parameter.is_special = True
    tensor = thirds(2, 3)
    tensor.is_special = True
    torch.save({"a": {"b": {"c": {"parameter": parameter, "tensor": tensor}}}}, "objects_deep.pth")


if __name__ == "__main__":
    main()

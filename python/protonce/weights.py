"""Encoders as torchvision's ResNets, in whatever version of torch there is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import tensors

if TYPE_CHECKING:
    import torch

# Blocks of the four stages, and whether they are bottlenecks.
_ARCHITECTURES: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}


def load(weights: Any, *, head: bool = False) -> torch.nn.Module:
    """The encoder as torchvision's ResNet, in evaluation mode.

    Parameters
    ----------
    weights : Run, str or path
        A run, its folder or one of its checkpoints, or what ``protonce weights export`` writes for
        torchvision or as safetensors.
    head : bool
        Whether to keep the projection head as ``fc``; otherwise that is the identity, and features
        of 512 or 2048 numbers come out; of fewer or more from a network of other than 64 base channels.

    Returns
    -------
    torchvision.models.ResNet
        Float32, on the CPU. Where the weights say which images they want, the attribute ``views``
        holds ``image_size``, ``eval_resize``, ``mean`` and ``std`` among others, which
        ``Loader(data, crops="centre", **model.views)`` makes.

    Raises
    ------
    ValueError
        When it is no such encoder, or has no head and one is asked for.
    FileNotFoundError
        When there is nothing at the path.
    ImportError
        Without torch and torchvision.
    """
    import torch
    import torchvision

    path = _file(Path(os.fspath(getattr(weights, "folder", weights))))
    state, views = _state(path)
    arch, channels, small = _architecture(path, state)
    with torch.device("meta"):
        model = getattr(torchvision.models, arch)(weights=None)
        if small:
            model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            model.maxpool = torch.nn.Identity()
        _scale(model, channels)
        model.fc = _head(path, state) if head else torch.nn.Identity()
    if not head:
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    for name in model.state_dict():
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, torch.tensor(0))
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is not torchvision's {arch}: {error}") from None
    if views is not None:
        model.views = views
    return model.eval()


def _file(path: Path) -> Path:
    """The file with the encoder that `path` means."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a run or a file of weights")
    if path.is_file():
        return path
    folders = [path]
    if (path / "checkpoints").is_dir():
        # By number: epoch 10000 comes after epoch 9999.
        position = lambda folder: [int(number) for number in re.findall(r"\d+", folder.name)]
        folders = sorted((path / "checkpoints").glob("epoch-*"), key=position, reverse=True)
        last = path / "checkpoints" / "last"
        if last.is_file():
            folders.insert(0, last.parent / last.read_text().strip())
    for folder in folders:
        file = folder / "encoder.safetensors"
        if file.is_file():
            return file
    raise ValueError(f"{path} is neither a run with a checkpoint nor a checkpoint")


def _state(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The tensors by their names, and the settings of the views that the encoder wants."""
    import numpy as np
    import torch

    if path.suffix == ".safetensors":
        arrays, metadata = tensors.read(path)
        state = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
        written = json.loads(metadata["protonce"])["views"] if "protonce" in metadata else None
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        card = path.with_name(path.name + ".card.json")
        written = json.loads(card.read_text())["views"] if card.is_file() else None
    # As DistributedDataParallel saved it, in the published layout.
    query = "module.encoder_q."
    if any(name.startswith(query) for name in state):
        state = {n[len(query) :]: v for n, v in state.items() if n.startswith(query)}
    if written is None:
        written = _views_of_run(path)
    views = {name.replace("-", "_"): value for name, value in (written or {}).items()}
    return state, views or None


def _views_of_run(path: Path) -> dict[str, Any] | None:
    """The settings of views of the run that a checkpoint belongs to."""
    from . import _core

    run = path.parent.parent.parent
    if not (run / "config.toml").is_file():
        return None
    settings = json.loads(_core.run_settings(str(run)))
    known = json.loads(_core.view_settings("v2", "{}"))
    return {name: settings[name] for name in known if name in settings}


def _architecture(path: Path, state: dict[str, Any]) -> tuple[str, int, bool]:
    """Torchvision's name of the network, its base channels, and whether it has the stem for small images."""
    blocks = []
    for stage in range(1, 5):
        pattern = re.compile(rf"layer{stage}\.(\d+)\.")
        found = [int(match[1]) for name in state if (match := pattern.match(name))]
        blocks.append(max(found, default=-1) + 1)
    arch = _ARCHITECTURES.get((tuple(blocks), "layer1.0.conv3.weight" in state))
    if arch is None or "conv1.weight" not in state:
        raise ValueError(f"{path} holds no ResNet under torchvision's names")
    stem = state["conv1.weight"].shape
    if arch == "resnet50":
        width, inner = state["layer1.0.conv2.weight"].shape[:2]
        if width == 2 * stem[0]:
            arch = "wide_resnet50_2" if inner == width else "resnext50_32x4d"
    return arch, stem[0], stem[-1] == 3


def _scale(model: torch.nn.Module, base_channels: int) -> None:
    """Brings a network of 64 base channels on the meta device to as many as are asked for."""
    from torch import nn

    def scaled(channels: int) -> int:
        return channels * base_channels // 64

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            # Not the three of an image.
            if module.in_channels != 3:
                module.in_channels = scaled(module.in_channels)
            module.out_channels = scaled(module.out_channels)
            inputs = module.in_channels // module.groups
            shape = (module.out_channels, inputs, *module.kernel_size)
            module.weight = nn.Parameter(module.weight.new_empty(shape))
        elif isinstance(module, nn.BatchNorm2d):
            module.__init__(scaled(module.num_features))


def _head(path: Path, state: dict[str, Any]) -> torch.nn.Module:
    """The projection head that the tensors of ``fc`` are of."""
    from torch import nn

    def linear(name: str) -> nn.Linear:
        outputs, inputs = state[f"{name}.weight"].shape
        return nn.Linear(inputs, outputs)

    if "fc.weight" in state:
        return linear("fc")
    if "fc.2.weight" in state:
        return nn.Sequential(linear("fc.0"), nn.ReLU(), linear("fc.2"))
    if "fc.3.weight" in state:
        norm = nn.BatchNorm1d(len(state["fc.1.weight"]))
        return nn.Sequential(linear("fc.0"), norm, nn.ReLU(), linear("fc.3"))
    raise ValueError(f"{path} has no projection head: expected head=False")

"""Loads every export with the tool it is for and compares what comes out with `protonce embed`.

pip install -r scripts/check_exports.txt
python scripts/check_exports.py --data IMAGES.tar

For ResNet-18 and ResNet-50 with both stems: makes an encoder in torchvision, saves it as the published
scripts do, imports it, exports it to every target, and runs each export on 64 images. Fails where a
number is off by 1e-4 or more, or where a loader is not content.
"""

import argparse
import json
import pathlib
import pickle
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet
import safetensors.numpy
import safetensors.torch
import timm
import torch
import torchvision
from PIL import Image
from torchvision import transforms

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import embed_onnxruntime
import embed_torchvision

BOUND, IMAGES, DIM = 1e-4, 64, 32


def small_stem(model):
    model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = torch.nn.Identity()


def build(create, stem, head, width):
    """`create(classes)` gives torchvision's or timm's own module; changed as the export's note says."""
    model = create(DIM)
    if stem == "small":
        small_stem(model)
    if head == "mlp":
        linear = torch.nn.Linear
        model.fc = torch.nn.Sequential(linear(width, width), torch.nn.ReLU(), linear(width, DIM))
    elif head == "none":
        model.fc = torch.nn.Identity()
    return model.eval()


def make(arch, stem, head, path):
    """An encoder with batch norm as training leaves it, saved as the published scripts do."""
    torch.manual_seed(len(arch + stem + head))
    create = lambda classes: getattr(torchvision.models, arch)(num_classes=classes)
    width = create(2).fc.in_features
    model = build(create, stem, head, width)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.5)
            module.num_batches_tracked.fill_(7)
    state = {f"module.encoder_q.{k}": v for k, v in model.state_dict().items()}
    state |= {f"module.encoder_k.{k}": torch.zeros_like(v) for k, v in model.state_dict().items()}
    state |= {"module.queue": torch.randn(DIM, 64), "module.queue_ptr": torch.tensor([8])}
    optimizer = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9).state_dict()
    checkpoint = {"epoch": 5, "arch": arch, "state_dict": state, "optimizer": optimizer}
    # Both layouts are seen: one for each stem.
    torch.save(checkpoint, path, _use_new_zipfile_serialization=stem == "small")
    return state, width


class Check:
    def __init__(self, features, embeddings):
        self.expected = {"features": features, "embedding": embeddings}
        self.worst = 0.0

    def __call__(self, name, kind, found):
        found = torch.as_tensor(np.asarray(found)) if not torch.is_tensor(found) else found
        gap = (found - torch.from_numpy(self.expected[kind])).abs().max().item()
        self.worst = max(self.worst, gap)
        print(f"    {name:<34} {kind:<10} {gap:.1e}")
        if not gap < BOUND:
            sys.exit(f"{name}: {kind} differ by {gap}")


def backbone(model, images):
    """Features and normalised output of torchvision's or timm's module with its head."""
    seen = {}
    hook = model.fc.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    output = torch.nn.functional.normalize(model(images))
    hook.remove()
    return seen["x"], output


@torch.no_grad()
def check(binary, arch, stem, head, names, data, folder):
    def run(*arguments):
        subprocess.run([binary, *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)

    checkpoint, weights = folder / "published.pth.tar", folder / "weights.safetensors"
    state, width = make(arch, stem, head, checkpoint)
    size = ["--image-size", 64] if stem == "imagenet" else []
    run("weights", "import", checkpoint, "--out", weights, *size)
    rows = {}
    for output in ("features", "embeddings"):
        run("embed", "--weights", weights, "--data", data, "--output", output,
            "--out", folder / f"{output}.npy")
        rows[output] = np.load(folder / f"{output}.npy")
    check = Check(rows["features"], rows["embeddings"])

    card = json.loads((folder / "weights.safetensors.card.json").read_text())
    views = card["views"]
    view = transforms.Compose([
        transforms.Resize(views["eval-resize"]), transforms.CenterCrop(views["image-size"]),
        transforms.ToTensor(), transforms.Normalize(views["mean"], views["std"]),
    ])
    images = torch.stack([view(Image.open(name).convert("RGB")) for name in names])

    def export(target, *more):
        path = folder / f"{target}{''.join(more)}"
        run("weights", "export", weights, "--to", target, "--out", path, *more)
        return path

    creators = {
        "torchvision": lambda classes: getattr(torchvision.models, arch)(num_classes=classes),
        "timm": lambda classes: timm.create_model(arch, num_classes=classes),
    }
    for target, create in creators.items():
        model = build(create, stem, head, width)
        model.load_state_dict(torch.load(export(target), weights_only=True), strict=True)
        features, embedding = backbone(model, images)
        check(f"{target}, strict", "features", features)
        check(f"{target}, strict", "embedding", embedding)
        bare = build(create, stem, "none", width)
        if target == "timm" and stem == "imagenet":
            bare = timm.create_model(arch, num_classes=0).eval()
        bare.load_state_dict(
            torch.load(export(target, "--without-head"), weights_only=True), strict=True)
        check(f"{target} without head, strict", "features", bare(images))

    # The published layout: tensors equal to those that came in, then as the published
    # evaluation loads them.
    published = torch.load(export("pcl"), weights_only=True)
    own = {k: v for k, v in state.items() if k.startswith("module.encoder_q.")}
    again = published["state_dict"]
    assert set(own) == set(again) and all(torch.equal(own[k], again[k]) for k in own)
    assert (published["epoch"], published["arch"]) == (5, arch)
    direct = folder / "direct.pth.tar"
    run("weights", "export", checkpoint, "--to", "pcl", "--out", direct)
    again = torch.load(direct, weights_only=True)["state_dict"]
    assert set(state) == set(again) and all(torch.equal(state[k], again[k]) for k in state)
    probe = build(creators["torchvision"], stem, "linear", width)
    prefix = "module.encoder_q."
    kept = {k[len(prefix):]: v for k, v in again.items()
            if k.startswith(prefix) and not k.startswith(prefix + "fc")}
    message = probe.load_state_dict(kept, strict=False)
    assert set(message.missing_keys) == {"fc.weight", "fc.bias"} and not message.unexpected_keys
    check("published layout, main_lincls", "features", backbone(probe, images)[0])

    model = build(creators["torchvision"], stem, head, width)
    model.load_state_dict(safetensors.torch.load_file(export("safetensors")), strict=True)
    check("safetensors, strict", "embedding", backbone(model, images)[1])

    if stem == "imagenet":
        with open(export("detectron2"), "rb") as file:
            saved = pickle.load(file)
        assert saved["matching_heuristics"] is True and saved["__author__"]
        check("detectron2's names, strict", "features", detectron2(arch, saved["model"], images))

    for more in ([], ["--fold"], ["--without-head"]):
        path = str(export("onnx", *more))
        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        features, embedding = session.run(["features", "embedding"], {"images": images.numpy()})
        name = f"onnxruntime {' '.join(more)}"
        check(name, "features", features)
        if "--without-head" not in more:
            check(name, "embedding", embedding)
        # The batch is dynamic.
        one, _ = session.run(None, {"images": images[:1].numpy()})
        assert one.shape == (1, width)

    features, embedding = embed_onnxruntime.load(str(export("onnx", "--fold")))(names)
    check("examples/embed_onnxruntime.py", "embedding", embedding)
    features = embed_torchvision.load(str(export("torchvision", "--without-head")))(names)
    check("examples/embed_torchvision.py", "features", features)

    # The file formats, by other people's readers.
    for ending in ("safetensors", "parquet", "csv"):
        run("embed", "--weights", weights, "--data", data, "--out", folder / f"rows.{ending}")
    table = pyarrow.parquet.read_table(folder / "rows.parquet").to_pydict()
    assert np.array_equal(np.array(table["features"], np.float32), rows["features"])
    assert [str(pathlib.Path(data).parent / name) for name in table["name"]] == names
    tensors = safetensors.numpy.load_file(folder / "rows.safetensors")
    assert np.array_equal(tensors["features"], rows["features"])
    ends = tensors["name_ends"].tolist()
    joined = tensors["names"].tobytes()
    assert [joined[a:b].decode() for a, b in zip([0] + ends, ends)] == table["name"]
    numbers = np.genfromtxt(folder / "rows.csv", delimiter=",", skip_header=1)[:, 3:]
    assert np.array_equal(numbers.astype(np.float32), rows["features"])
    return check.worst


def detectron2(arch, arrays, images):
    """A ResNet built from detectron2's names alone, as its `build_resnet_backbone` lays them out, with
    the stride in the 3×3 convolution; every array must be used."""
    arrays = {k: torch.from_numpy(v) for k, v in arrays.items()}
    used = set()

    def take(name):
        used.add(name)
        return arrays[name]

    def unit(x, name, stride=1):
        weight = take(name + ".weight")
        x = torch.nn.functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        scale, shift, mean, var = (
            take(f"{name}.norm.{part}") for part in ("weight", "bias", "running_mean", "running_var"))
        return torch.nn.functional.batch_norm(x, mean, var, scale, shift)

    relu = torch.nn.functional.relu
    x = relu(unit(images, "stem.conv1", 2))
    x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
    convolutions, depth = {"resnet18": (2, [2, 2, 2, 2]), "resnet50": (3, [3, 4, 6, 3])}[arch]
    for stage, blocks in enumerate(depth):
        for block in range(blocks):
            name, stride = f"res{stage + 2}.{block}", 2 if stage and not block else 1
            carried = x
            if f"{name}.shortcut.weight" in arrays:
                carried = unit(x, f"{name}.shortcut", stride)
            strided = 2 if convolutions == 3 else 1
            for number in range(1, convolutions + 1):
                x = unit(x, f"{name}.conv{number}", stride if number == strided else 1)
                if number < convolutions:
                    x = relu(x)
            x = relu(x + carried)
    assert used == set(arrays), set(arrays) - used
    return x.mean((2, 3))


def first_images(data, folder):
    """64 images of a tar archive as PNG files, and a list of them. PNG, because two JPEG decoders may
    differ by a shade, which would be measured too."""
    with tarfile.open(data) as archive:
        members = [m for m in archive if m.isfile() and m.name.lower().endswith((".jpg", ".jpeg", ".png", ".webp"))]
        members = sorted(members, key=lambda m: m.name)[:: max(1, len(members) // IMAGES)][:IMAGES]
        names = []
        for number, member in enumerate(members):
            path = folder / f"{number:02}.png"
            Image.open(archive.extractfile(member)).convert("RGB").save(path)
            names.append(str(path))
    listed = folder / "images.txt"
    listed.write_text("".join(pathlib.Path(name).name + "\n" for name in names))
    return names, str(listed)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", required=True, help="a tar archive of images")
    arguments.add_argument("--protonce", default=str(ROOT / "target/release/protonce"))
    arguments.add_argument("--arch", nargs="*", default=["resnet18", "resnet50"])
    arguments = arguments.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        names, data = first_images(arguments.data, folder)
        for arch in arguments.arch:
            for stem, head in (("small", "mlp"), ("imagenet", "linear"), ("imagenet", "mlp")):
                print(f"{arch}, {stem} stem, {head} head, {len(names)} images")
                part = folder / f"{arch}-{stem}-{head}"
                part.mkdir()
                worst = check(arguments.protonce, arch, stem, head, names, data, part)
                print(f"    worst difference {worst:.1e}")


if __name__ == "__main__":
    main()

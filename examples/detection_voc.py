"""Faster R-CNN R50-C4 on Pascal VOC from torchvision's parts, by the protocol of MoCo (He et al., 2020).

protonce weights export run --to torchvision --without-head --out encoder.pth
python examples/detection_voc.py VOCdevkit encoder.pth --out detection
torchrun --nproc-per-node 8 examples/detection_voc.py VOCdevkit encoder.pth --out detection

Needs torch and torchvision. Trained on the trainval images of VOC2007 and VOC2012 together, tested on
the test images of VOC2007. The whole network is fine-tuned, with batch norm over all images of a step
(synchronised between processes) and one batch norm more after the last stage, which is the head of
regions. Flags begin with the protocol's values. Started again, it goes on from the last checkpoint in
--out; at the end, results.json holds AP, AP50 and AP75 twice: with precision at the 11 levels of recall
of VOC 2007, which detectron2 reports of this benchmark and MoCo's tables hold, and at the 101 of COCO.

What differs most from detectron2, for which `detection_voc_detectron2.yaml` has the protocol to the letter:
losses of boxes are torchvision's, quadratic below 1/9, where detectron2's are absolute differences, and
boxes of anchors are rounded to whole pixels.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from torch import distributed, nn
from torchvision import ops
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import functional

import protonce

CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
STRIDE = 16


# The images.


class VOC(torch.utils.data.Dataset):
    """Images and boxes of some `(year, split)` of a VOCdevkit.

    Gives (image, target): float32 [3, height, width] in 0 to 1, and `boxes` [n, 4] in pixels from 0,
    `labels` [n] from 1 on (0 is the background), `difficult` [n].
    """

    def __init__(self, devkit, splits, training):
        self.training = training
        self.items = []
        for year, split in splits:
            folder = Path(devkit, f"VOC{year}")
            if not folder.is_dir():
                raise SystemExit(f"{folder} does not exist: expected VOC2007 and VOC2012 in {devkit}")
            for name in (folder / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
                self.items.append((folder / "JPEGImages" / f"{name}.jpg", *self._annotation(folder, name)))
        if training:
            self.items = [item for item in self.items if len(item[2]["boxes"])]

    @staticmethod
    def _annotation(folder, name):
        tree = ElementTree.parse(folder / "Annotations" / f"{name}.xml")
        boxes, labels, difficult = [], [], []
        for one in tree.iter("object"):
            left, top, right, bottom = (
                float(one.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            # The devkit counts pixels from 1, and both ends belong to a box.
            boxes.append([left - 1, top - 1, right, bottom])
            labels.append(CLASSES.index(one.findtext("name")) + 1)
            difficult.append(one.findtext("difficult") == "1")
        wide = int(tree.findtext("size/width")) > int(tree.findtext("size/height"))
        return wide, {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "difficult": torch.tensor(difficult, dtype=torch.bool),
        }

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        path, _, target = self.items[index]
        image = functional.to_tensor(Image.open(path).convert("RGB"))
        if self.training and torch.rand(()) < 0.5:
            target = {**target, "boxes": target["boxes"].clone()}
            image = image.flip(-1)
            target["boxes"][:, [0, 2]] = image.shape[-1] - target["boxes"][:, [2, 0]]
        return image, target


class Batches(torch.utils.data.Sampler):
    """Endless batches, each of wide images alone or of the others, from the step `first` on.

    Every process draws the same order and takes its own part of every batch, so that a batch is the
    same for any number of processes.
    """

    def __init__(self, dataset, batch_size, rank, size, first, seed):
        if batch_size % size:
            raise SystemExit(f"--batch-size {batch_size}: expected a multiple of {size} processes")
        self.wide = [wide for _, wide, _ in dataset.items]
        self.batch_size, self.rank, self.size, self.first, self.seed = batch_size, rank, size, first, seed

    def __iter__(self):
        return itertools.islice(self._all(), self.first, None)

    def _all(self):
        order = random.Random(self.seed)
        waiting = {True: [], False: []}
        while True:
            for index in order.sample(range(len(self.wide)), len(self.wide)):
                batch = waiting[self.wide[index]]
                batch.append(index)
                if len(batch) == self.batch_size:
                    yield batch[self.rank :: self.size]
                    batch.clear()


def columns(batch):
    return tuple(zip(*batch))


def only(batch):
    [one] = batch
    return one


# The network.


class RegionPool(nn.Module):
    """RoIAlign with half-pixel offsets (detectron2's ROIAlignV2), as torchvision's RoIHeads call it."""

    def forward(self, features, proposals, _):
        return ops.roi_align(features["0"], proposals, 14, 1 / STRIDE, aligned=True)


def backbone_and_head(encoder):
    """The encoder up to its third stage, and the fourth with the batch norm that MoCo adds."""
    if not isinstance(encoder.maxpool, nn.MaxPool2d):
        raise SystemExit("these weights have the stem for small images: expected --stem imagenet")
    stem = [encoder.conv1, encoder.bn1, encoder.relu, encoder.maxpool]
    body = nn.Sequential(*stem, encoder.layer1, encoder.layer2, encoder.layer3)
    last = encoder.layer4[-1]
    width = getattr(last, "bn3", last.bn2).num_features
    head = nn.Sequential(
        encoder.layer4, nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return body, encoder.layer4[0].conv1.in_channels, head, width


class FeatureMap(nn.Module):
    """One map of features under the name by which GeneralizedRCNN hands it on."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, batch):
        return {"0": self.body(batch)}


def faster_rcnn(encoder, views, settings):
    """torchvision's Faster R-CNN with detectron2's settings for one feature map of stride 16."""
    body, channels, head, width = backbone_and_head(encoder)
    anchors = AnchorGenerator(sizes=((32, 64, 128, 256, 512),), aspect_ratios=((0.5, 1.0, 2.0),))
    rpn = RegionProposalNetwork(
        anchors,
        RPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 12000, "testing": 6000},
        post_nms_top_n={"training": 2000, "testing": 1000},
        nms_thresh=0.7,
    )
    predictor = FastRCNNPredictor(width, len(CLASSES) + 1)
    for layer, deviation in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
    regions = RoIHeads(
        RegionPool(),
        head,
        predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=settings.regions,
        positive_fraction=0.25,
        bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
    )
    # In training one of several sizes; the last one is the test's.
    transform = GeneralizedRCNNTransform(
        settings.sizes, settings.max_size, views["mean"], views["std"], size_divisible=1
    )
    return GeneralizedRCNN(FeatureMap(body), rpn, regions, transform)


def optimizer_of(model, settings):
    """SGD without weight decay on batch norm, its rate rising over the first steps and falling twice."""
    norms, others = [], []
    for module in model.modules():
        chosen = norms if isinstance(module, nn.modules.batchnorm._BatchNorm) else others
        chosen += module.parameters(recurse=False)
    groups = [{"params": others}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, settings.lr, momentum=0.9, weight_decay=1e-4)

    def factor(step):
        progress = min(1.0, step / settings.warmup) if settings.warmup else 1.0
        fallen = sum(step >= milestone for milestone in settings.steps)
        return (0.001 + 0.999 * progress) * 0.1**fallen

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


# Training and testing.


def train(model, optimizer, schedule, batches, settings, device, save):
    """Steps until there have been as many as are wanted."""
    # Gradients are averaged over processes; what is saved and tested is the model itself.
    parallel = model
    if distributed.is_initialized():
        parallel = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    model.train()
    for batch, targets in batches:
        step = schedule.last_epoch
        if step == settings.iterations:
            break
        losses = parallel(*to_device(batch, targets, device))
        loss = sum(losses.values())
        if not torch.isfinite(loss):
            raise SystemExit(f"step {step + 1}: the loss is {loss.item()}; a lower --lr may help")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        step += 1
        if step % settings.log_every == 0 or step == settings.iterations:
            parts = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            say(f"step {step}/{settings.iterations}: loss {loss.item():.3f}: {parts}")
        if step % settings.save_every == 0 or step == settings.iterations:
            save()


def to_device(batch, targets, device):
    moved = [
        {name: value.to(device, non_blocking=True) for name, value in one.items()} for one in targets
    ]
    return [image.to(device, non_blocking=True) for image in batch], moved


@torch.no_grad()
def precise_batch_norm(model, batches, count, device):
    """Means and variances of batch norm as the average of `count` batches, with the weights at rest."""
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # A plain average instead of a moving one.
        norm.momentum = None
    model.train()
    for batch, targets in itertools.islice(batches, count):
        model(*to_device(batch, targets, device))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


@torch.no_grad()
def detect(model, dataset, rank, size, workers, device):
    """(image, class from 0, score, box) of everything found in all images, from all processes."""
    model.eval()
    part = range(rank, len(dataset), size)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(dataset, part), num_workers=workers, collate_fn=only
    )
    found = []
    for number, (image, _) in zip(part, loader):
        [one] = model([image.to(device)])
        for box, label, score in zip(*(one[name].tolist() for name in ("boxes", "labels", "scores"))):
            found.append((number, label - 1, score, box))
    if not distributed.is_initialized():
        return found
    everything = [None] * size
    distributed.all_gather_object(everything, found)
    return list(itertools.chain.from_iterable(everything))


def matches(found, truth):
    """The object that each detection of one class overlaps most, best detection first.

    `found` lists (image, score, box), `truth` has for each image boxes [n, 4] and whether each is
    difficult. Gives (overlap, object, difficult).
    """
    matched = []
    for image, _, box in sorted(found, key=lambda one: -one[1]):
        boxes, difficult = truth[image]
        if len(boxes) == 0:
            matched.append((0.0, None, False))
            continue
        overlap, best = ops.box_iou(torch.tensor([box], dtype=boxes.dtype), boxes)[0].max(0)
        matched.append((overlap.item(), (image, best.item()), difficult[best]))
    return matched


def judge(matched, threshold):
    """Which detections are right (1), wrong (0) or not counted (-1), as the VOC devkit judges.

    Right is one that overlaps its object by more than `threshold` and is the first to do so; objects
    called difficult are not counted.
    """
    taken, judged = set(), []
    for overlap, which, difficult in matched:
        if not overlap > threshold:
            judged.append(0)
        elif difficult:
            judged.append(-1)
        else:
            judged.append(int(which not in taken))
            taken.add(which)
    return judged


def average_precision(judged, objects, points):
    """Precision at or beyond each of `points` levels of recall from 0 to 1, on average."""
    counted = np.array([hit for hit in judged if hit >= 0])
    right = np.cumsum(counted)
    precision = right / np.arange(1, len(counted) + 1)
    # The best precision at this recall or any higher one.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    # Levels as whole numbers: 0.1 · 3 would miss 0.3.
    first = np.searchsorted(right * (points - 1), np.arange(points) * objects)
    return np.append(precision, 0.0)[np.minimum(first, len(precision))].mean()


def evaluate(found, targets):
    """AP over IoU 0.50 to 0.95, AP50 and AP75 in percent, with 11 and with 101 levels of recall.

    `found` as `detect` gives it, `targets` those of the images in order.
    """
    thresholds = [percent / 100 for percent in range(50, 100, 5)]
    tables = {11: [], 101: []}
    for label in range(len(CLASSES)):
        truth, objects = [], 0
        for target in targets:
            of_class = target["labels"] == label + 1
            difficult = target["difficult"][of_class]
            truth.append((target["boxes"][of_class].double(), difficult.tolist()))
            objects += int((~difficult).sum())
        if objects == 0:
            # A class of which there is nothing to find has no precision.
            continue
        of_class = [(image, score, box) for image, kind, score, box in found if kind == label]
        matched = matches(of_class, truth)
        judged = [judge(matched, threshold) for threshold in thresholds]
        for points, table in tables.items():
            table.append([average_precision(one, objects, points) for one in judged])
    results = {}
    for points, table in tables.items():
        means = 100 * np.mean(table, axis=0)
        results[f"{points} points"] = {"AP": means.mean(), "AP50": means[0], "AP75": means[5]}
    return results


# The program.


def say(text):
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        print(text, flush=True)


def write(path, save):
    """Writes a file whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        save(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


@contextlib.contextmanager
def processes():
    """(rank, number of processes, device): those of torchrun, or one."""
    cuda = torch.cuda.is_available()
    if "RANK" not in os.environ:
        yield 0, 1, torch.device("cuda" if cuda else "cpu")
        return
    if not cuda:
        raise SystemExit("several processes need a GPU each: batch norm is synchronised on GPUs alone")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    distributed.init_process_group("nccl")
    try:
        yield distributed.get_rank(), distributed.get_world_size(), device
    finally:
        distributed.destroy_process_group()


def main(settings):
    with processes() as (rank, size, device):
        torch.manual_seed(settings.seed + rank)
        encoder = protonce.load(settings.weights)
        views = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
        views.update(getattr(encoder, "views", {}))
        model = faster_rcnn(encoder, views, settings)
        if size > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        model.to(device)
        optimizer, schedule = optimizer_of(model, settings)
        out = Path(settings.out)
        out.mkdir(parents=True, exist_ok=True)
        checkpoint = out / "checkpoint.pth"
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
        if checkpoint.is_file():
            saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(saved[name])
            say(f"goes on after step {schedule.last_epoch} of {checkpoint}")

        def save():
            if rank == 0:
                state = {name: part.state_dict() for name, part in parts.items()}
                write(checkpoint, lambda file: torch.save(state, file))

        training = VOC(settings.devkit, [(2007, "trainval"), (2012, "trainval")], training=True)
        testing = VOC(settings.devkit, [(2007, "test")], training=False)
        say(f"{len(training)} images to learn from, {len(testing)} to be tested on")

        def batches(first):
            return torch.utils.data.DataLoader(
                training,
                batch_sampler=Batches(
                    training, settings.batch_size, rank, size, first, settings.seed
                ),
                num_workers=settings.workers,
                collate_fn=columns,
                pin_memory=device.type == "cuda",
            )

        first = schedule.last_epoch
        if first < settings.iterations:
            train(model, optimizer, schedule, batches(first), settings, device, save)
        precise_batch_norm(model, batches(settings.iterations), settings.precise_batches, device)
        found = detect(model, testing, rank, size, settings.workers, device)
        if rank == 0:
            results = evaluate(found, [target for _, _, target in testing.items])
            text = json.dumps(results, indent=2).encode()
            write(out / "results.json", lambda file: file.write(text))
            for name, figures in results.items():
                print(name, *(f"{key} {value:.2f}" for key, value in figures.items()))


def parser():
    def numbers(text):
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("devkit", help="VOCdevkit with VOC2007 and VOC2012 in it")
    add("weights", help="what `protonce weights export --to torchvision` wrote, or a run")
    add("--out", default="detection", help="folder of the checkpoint and the results")
    add("--iterations", type=int, default=24000)
    add("--batch-size", type=int, default=16, help="images of a step, in all processes together")
    add("--lr", type=float, default=0.02)
    add("--warmup", type=int, default=100, help="steps over which the learning rate rises")
    add("--steps", type=numbers, default=[18000, 22000], help="where it falls to a tenth")
    add(
        "--sizes",
        type=numbers,
        default=[480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
        help="short sides of images in training, in pixels; the last one is the test's",
    )
    add("--max-size", type=int, default=1333, help="long side, at most")
    add("--regions", type=int, default=512, help="regions of an image that train the head")
    add("--precise-batches", type=int, default=200, help="batches for the statistics of batch norm")
    add("--workers", type=int, default=4, help="processes that decode images")
    add("--log-every", type=int, default=20)
    add("--save-every", type=int, default=1000)
    add("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())

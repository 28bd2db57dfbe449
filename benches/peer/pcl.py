"""The peer: PCL as a careful PyTorch user would run it, on a CPU or on a GPU.

Everything protonce is compared with lives in this file: torchvision's ResNets and transforms on PIL images, a DataLoader
with workers, channels-last tensors, autocast where it helps, a fused SGD, faiss for the E-step. The numerics are those
of the published method (Li, Zhou, Xiong, Hoi, "Prototypical Contrastive Learning of Unsupervised Representations",
ICLR 2021), version 2.

    pcl.py speed --data cifar10.tar --folder train            images per second, one JSON object
    pcl.py train --data cifar10.tar --folder train            a whole run, one JSON line an epoch, kNN and linear at the end
"""

import argparse
import copy
import io
import json
import math
import os
import pathlib
import random
import sys
import tarfile
import threading
import time

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image, ImageFilter
from torch import nn
from torchvision import transforms

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# ---------------------------------------------------------------- data: a tar or a folder becomes (bytes, label)


class Images:
    """The encoded images of a tar or a folder, in byte-wise order of their paths; a label is the first folder."""

    def __init__(self, data, folder=None, per_class=None):
        root = f"{folder.strip('/')}/" if folder else ""
        self.path = data
        self.is_tar = os.path.isfile(data)
        found = self._in_tar() if self.is_tar else self._in_folder()
        found = sorted((entry for entry in found if entry[0].startswith(root)), key=lambda entry: os.fsencode(entry[0]))
        if not found:
            sys.exit(f"no images under {data}#{folder or ''}: expected .jpg, .jpeg or .png files")

        self.entries, self.labels, self.classes = [], [], []
        taken = {}
        for name, offset, size in found:
            inside = name[len(root):]
            label = inside.split("/")[0] if "/" in inside else ""
            if per_class and taken.get(label, 0) >= per_class:
                continue
            taken[label] = taken.get(label, 0) + 1
            if label not in self.classes:
                self.classes.append(label)
            self.entries.append((name, offset, size))
            self.labels.append(self.classes.index(label))
        self.descriptor = os.open(data, os.O_RDONLY) if self.is_tar else None

    def _in_tar(self):
        with tarfile.open(self.path) as archive:
            for member in archive:
                if member.isfile() and member.name.lower().endswith(IMAGE_SUFFIXES):
                    yield member.name.removeprefix("./"), member.offset_data, member.size

    def _in_folder(self):
        for file in pathlib.Path(self.path).rglob("*"):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                yield file.relative_to(self.path).as_posix(), 0, 0

    def __len__(self):
        return len(self.entries)

    def decode(self, index):
        name, offset, size = self.entries[index]
        if self.is_tar:
            # pread moves no file position, so the workers may share the descriptor they were forked with.
            encoded = os.pread(self.descriptor, size, offset)
        else:
            encoded = pathlib.Path(self.path, name).read_bytes()
        return Image.open(io.BytesIO(encoded)).convert("RGB")


class Views(torch.utils.data.Dataset):
    """`count` transformed copies of each image, decoded once; `repeat` walks through the images that many times."""

    def __init__(self, images, transform, count, repeat=1):
        self.images, self.transform, self.count, self.repeat = images, transform, count, repeat

    def __len__(self):
        return len(self.images) * self.repeat

    def __getitem__(self, position):
        index = position % len(self.images)
        image = self.images.decode(index)
        return [self.transform(image) for _ in range(self.count)], index


class Blur:
    """Gaussian blur, σ uniform in 0.1–2 (MoCo v2, SimCLR)."""

    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def normalise(options):
    return transforms.Normalize(*((CIFAR_MEAN, CIFAR_STD) if options.image_size <= 64 else (IMAGENET_MEAN, IMAGENET_STD)))


def random_view(options):
    blur = [transforms.RandomApply([Blur()], p=0.5)] if options.blur else []
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(options.image_size, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            *blur,
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            normalise(options),
        ]
    )


def centre_view(options):
    # The usual 256 → 224 margin for photographs; small images are used whole.
    size = options.image_size
    resize = size if size <= 64 else round(size * 8 / 7)
    return transforms.Compose(
        [transforms.Resize(resize), transforms.CenterCrop(size), transforms.ToTensor(), normalise(options)]
    )


def loader(dataset, options, shuffle):
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=options.batch_size,
        shuffle=shuffle,
        drop_last=shuffle,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=options.device != "cpu",
        generator=torch.Generator().manual_seed(options.seed),
    )


# ---------------------------------------------------------------- model: two encoders, a queue, the losses


def encoder(options):
    """A torchvision ResNet whose `fc` is the projection head."""
    network = torchvision.models.__dict__[options.arch](num_classes=options.dim)
    if options.stem == "small":
        network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    width = network.fc.in_features
    network.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), network.fc)
    return network.to(memory_format=torch.channels_last) if options.channels_last else network


class PCL(nn.Module):
    def __init__(self, options):
        super().__init__()
        self.encoder = encoder(options)
        self.momentum_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.pairs = list(self.momentum_encoder.parameters()), list(self.encoder.parameters())
        self.encoder_momentum, self.temperature = options.encoder_momentum, options.temperature
        self.register_buffer("queue", F.normalize(torch.randn(options.queue, options.dim), dim=1))
        self.pointer = 0
        self.to(options.device)

    @torch.no_grad()
    def follow(self):
        """θ' ← mθ' + (1−m)θ."""
        torch._foreach_lerp_(*self.pairs, 1 - self.encoder_momentum)

    @torch.no_grad()
    def enqueue(self, keys):
        """Overwrite the oldest keys; the ring wraps wherever the batch ends."""
        positions = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[positions] = keys
        self.pointer = (self.pointer + len(keys)) % len(self.queue)

    def forward(self, query_view, key_view):
        with torch.no_grad():
            self.follow()
            key = F.normalize(self.momentum_encoder(key_view).float(), dim=1)  # [batch, dim]
        query = F.normalize(self.encoder(query_view).float(), dim=1)  # [batch, dim]
        return query, key

    def info_nce(self, query, key):
        positive = (query * key).sum(dim=1, keepdim=True)
        logits = torch.cat([positive, query @ self.queue.T], dim=1) / self.temperature  # [batch, 1 + queue]
        return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))


def proto_nce(query, index, granularities, negatives):
    """Mean over granularities of each query's loss against prototypes; duplicates in the batch are kept."""
    terms = []
    for assignment, prototypes, concentration in granularities:
        own = assignment[index]  # [batch]
        free = torch.ones(len(prototypes), dtype=torch.bool, device=query.device)
        free[own] = False
        others = free.nonzero().flatten()
        others = others[torch.randperm(len(others), device=query.device)[:negatives]]
        terms.append(prototype_loss(query, own, others, prototypes, concentration))
    return torch.stack(terms).mean()


def prototype_loss(query, own, others, prototypes, concentration):
    chosen = torch.cat([own, others])
    logits = query @ prototypes[chosen].T / concentration[chosen]  # [batch, batch + others]
    return F.cross_entropy(logits, torch.arange(len(query), device=query.device))


# ---------------------------------------------------------------- E-step


@torch.no_grad()
def embed(network, batches, options, dim):
    """What `network` makes of each image's centre crop, [images, dim]."""
    network.eval()
    embeddings = torch.empty(len(batches.dataset), dim)
    for (view,), index in batches:
        with precision(options):
            embeddings[index] = network(layout(view, options)).float().cpu()
    network.train()
    return embeddings


def expectation(model, batches, options):
    """Momentum embeddings → k-means → (assignment, prototypes, concentration), one per granularity."""
    embeddings = F.normalize(embed(model.momentum_encoder, batches, options, options.dim), dim=1).numpy()
    granularities = [k_means(embeddings, clusters, seed, options) for seed, clusters in enumerate(options.clusters)]
    return [tuple(part.to(options.device) for part in granularity) for granularity in granularities]


def k_means(embeddings, clusters, seed, options):
    import faiss

    dim = embeddings.shape[1]
    clustering = faiss.Clustering(dim, clusters)
    clustering.niter, clustering.nredo, clustering.seed = 20, 5, seed
    clustering.max_points_per_centroid, clustering.min_points_per_centroid = 1000, 1
    search = faiss.IndexFlatL2(dim)
    clustering.train(embeddings, search)
    squared, nearest = search.search(embeddings, 1)

    assignment = nearest[:, 0]
    centroids = faiss.vector_to_array(clustering.centroids).reshape(clusters, dim)
    distance = np.sqrt(np.maximum(squared[:, 0], 0))
    return (
        torch.from_numpy(assignment),
        F.normalize(torch.from_numpy(centroids.copy()), dim=1),
        torch.from_numpy(concentration(assignment, distance, clusters, options.temperature)),
    )


def concentration(assignment, distance, clusters, temperature):
    """φ: small for tight and large clusters, scaled so that its mean is the temperature."""
    size = np.bincount(assignment, minlength=clusters)
    total = np.bincount(assignment, weights=distance, minlength=clusters)
    density = total / np.maximum(size, 1) / np.log(size + 10)
    density[size < 2] = density[size >= 2].max(initial=0.0)
    density = np.clip(density, np.percentile(density, 10), np.percentile(density, 90))
    return (temperature * density / density.mean()).astype(np.float32)


# ---------------------------------------------------------------- M-step


def precision(options):
    return torch.autocast(torch.device(options.device).type, dtype=torch.bfloat16, enabled=options.precision == "bf16")


def layout(view, options):
    view = view.to(options.device, non_blocking=True)
    return view.contiguous(memory_format=torch.channels_last) if options.channels_last else view


def optimiser(model, options):
    return torch.optim.SGD(
        model.encoder.parameters(), lr=options.lr, momentum=0.9, weight_decay=options.weight_decay, fused=True
    )


def maximization(model, sgd, views, index, granularities, options):
    """One step of SGD on InfoNCE, and on ProtoNCE once there are prototypes."""
    query_view, key_view = (layout(view, options) for view in views)
    index = index.to(options.device, non_blocking=True)
    with precision(options):
        query, key = model(query_view, key_view)
    info = model.info_nce(query, key)
    proto = proto_nce(query, index, granularities, options.negatives) if granularities else torch.zeros(())
    sgd.zero_grad(set_to_none=True)
    (info + proto).backward()
    sgd.step()
    model.enqueue(key)
    return info.item(), proto.item()


def learning_rate(epoch, options):
    if options.schedule == "cosine":
        return options.lr * 0.5 * (1 + math.cos(math.pi * epoch / options.epochs))
    return options.lr * 0.1 ** sum(epoch >= 0.6 * options.epochs + 0.2 * options.epochs * i for i in range(2))


# ---------------------------------------------------------------- what the representation is worth


def evaluate(model, images, options):
    backbone = copy.deepcopy(model.encoder)
    width = backbone.fc[0].in_features
    backbone.fc = nn.Identity()
    test_images = Images(options.data, options.eval_folder, options.eval_per_class)
    centre = centre_view(options)

    def features(of):
        batches = loader(Views(of, centre, 1), options, shuffle=False)
        labels = torch.tensor([images.classes.index(of.classes[label]) for label in of.labels])
        return F.normalize(embed(backbone, batches, options, width), dim=1), labels

    bank, bank_labels = features(images)
    test, test_labels = features(test_images)
    result = {f"knn_{k}": knn(bank, bank_labels, test, test_labels, k) for k in (20, 200)}

    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=10, max_iter=1000).fit(bank.numpy(), bank_labels.numpy())
    return result | {"logistic_regression": regression.score(test.numpy(), test_labels.numpy())}


def knn(bank, bank_labels, test, test_labels, k):
    """Accuracy of a vote of the k nearest, each weighted by exp(cosine / 0.07)."""
    classes = int(bank_labels.max()) + 1
    correct = 0
    for rows, truth in zip(test.split(512), test_labels.split(512)):
        similarity, neighbour = (rows @ bank.T).topk(min(k, len(bank)), dim=1)
        votes = torch.zeros(len(rows), classes).scatter_add_(1, bank_labels[neighbour], (similarity / 0.07).exp())
        correct += (votes.argmax(dim=1) == truth).sum().item()
    return correct / len(test)


# ---------------------------------------------------------------- memory


class PeakMemory(threading.Thread):
    """Largest memory of this process and its workers together, sampled; MiB.

    `rss` counts a page once per process that maps it, `pss` counts it once in all.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.rss = self.pss = 0.0
        self.start()

    def run(self):
        while True:
            rss = pss = 0
            for process in [os.getpid(), *children(os.getpid())]:
                try:
                    for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                        if line.startswith("Rss:"):
                            rss += int(line.split()[1])
                        elif line.startswith("Pss:"):
                            pss += int(line.split()[1])
                except OSError:
                    continue  # it ended meanwhile
            self.rss, self.pss = max(self.rss, rss / 1024), max(self.pss, pss / 1024)
            time.sleep(0.5)


def children(process):
    found = []
    for task in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return found + [grandchild for child in found for grandchild in children(child)]


# ---------------------------------------------------------------- the two modes


def train(options):
    images = Images(options.data, options.folder, options.per_class)
    training = loader(Views(images, random_view(options), 2), options, shuffle=True)
    centred = loader(Views(images, centre_view(options), 1), options, shuffle=False)
    model = PCL(options)
    sgd = optimiser(model, options)
    granularities = None
    for epoch in range(options.epochs):
        started = time.perf_counter()
        for group in sgd.param_groups:
            group["lr"] = learning_rate(epoch, options)
        # E-step
        if options.method == "pcl" and epoch >= options.warmup_epochs:
            granularities = expectation(model, centred, options)
        expected = time.perf_counter()
        # M-step
        info = proto = steps = 0
        for views, index in training:
            info_nce, proto_nce_ = maximization(model, sgd, views, index, granularities, options)
            info, proto, steps = info + info_nce, proto + proto_nce_, steps + 1
            if not math.isfinite(info_nce + proto_nce_):
                sys.exit(f"the loss is {info_nce + proto_nce_} in epoch {epoch}: lower --lr")
        ended = time.perf_counter()
        emit(
            epoch=epoch,
            info_nce=info / steps,
            proto_nce=proto / steps,
            lr=sgd.param_groups[0]["lr"],
            expectation_seconds=expected - started,
            seconds=ended - started,
            images_per_second=steps * options.batch_size / (ended - expected),
        )
    if options.save:
        from safetensors.torch import save_file

        save_file({name: value.contiguous() for name, value in model.encoder.state_dict().items()}, options.save)
    if options.eval_folder:
        emit(**evaluate(model, images, options))


def speed(options):
    """The steady state: a full queue and prototypes for every granularity, stood in by random ones."""
    memory = PeakMemory()
    images = Images(options.data, options.folder, options.per_class)
    steps = options.warmup_steps + options.steps
    repeat = math.ceil((steps + 2 * options.workers + 2) * options.batch_size / len(images))
    batches = iter(loader(Views(images, random_view(options), 2, repeat), options, shuffle=True))
    model = PCL(options)
    sgd = optimiser(model, options)
    granularities = [
        (
            torch.randint(clusters, (len(images),), device=options.device),
            F.normalize(torch.randn(clusters, options.dim, device=options.device), dim=1),
            torch.full((clusters,), options.temperature, device=options.device),
        )
        for clusters in options.clusters
    ]

    def step(batch):
        maximization(model, sgd, *batch, granularities, options)

    # The whole loop: after the warm-up the workers are as far ahead as they are at the end, so nothing is for free.
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        batch = next(batches)
        step(batch)
        seconds.append(time.perf_counter() - began)
    loop = seconds[options.warmup_steps:]
    del batches

    # The step alone, on the last batch again and again.
    alone, processor = [], []
    for _ in range(options.step_only):
        began, used = time.perf_counter(), time.process_time()
        step(batch)
        alone.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)

    emit(
        images_per_second=options.batch_size * len(loop) / sum(loop),
        step_images_per_second=options.batch_size / float(np.median(alone)) if alone else None,
        step_processor_seconds=float(np.median(processor)) if alone else None,
        seconds=loop,
        peak_rss_mib=round(memory.rss),
        peak_pss_mib=round(memory.pss),
        arch=options.arch,
        image_size=options.image_size,
        batch_size=options.batch_size,
        precision=options.precision,
        channels_last=options.channels_last,
        device=options.device,
        threads=torch.get_num_threads(),
        workers=options.workers,
        torch=torch.__version__,
    )


def emit(**fields):
    print(json.dumps(fields), flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="mode", required=True)
    for mode in ("train", "speed"):
        command = commands.add_parser(mode)
        command.add_argument("--data", required=True, help="a tar or a folder of images")
        command.add_argument("--folder", help="only what lies under this folder of DATA")
        command.add_argument("--per-class", type=int, help="the first N images of each class")
        command.add_argument("--arch", default="resnet18")
        command.add_argument("--stem", choices=["small", "imagenet"], help="small up to 64 px unless said otherwise")
        command.add_argument("--image-size", type=int, default=32)
        command.add_argument("--dim", type=int, default=128)
        command.add_argument("--blur", action=argparse.BooleanOptionalAction, help="on above 64 px unless said otherwise")
        command.add_argument("--batch-size", type=int, default=256)
        command.add_argument("--lr", type=float, default=0.06)
        command.add_argument("--weight-decay", type=float, default=5e-4)
        command.add_argument("--encoder-momentum", type=float, default=0.99)
        command.add_argument("--temperature", type=float, default=0.2)
        command.add_argument("--queue", type=int, default=4096)
        command.add_argument("--negatives", type=int, help="as many as the queue is long unless said otherwise")
        command.add_argument("--clusters", type=lambda text: [int(k) for k in text.split(",")], default=[250, 500, 1000])
        command.add_argument("--precision", choices=["bf16", "float32"], default="float32")
        command.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)
        command.add_argument("--device", default="cpu", help="cpu or cuda")
        command.add_argument("--workers", type=int, default=2)
        command.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        command.add_argument("--seed", type=int, default=0)
        if mode == "train":
            command.add_argument("--method", choices=["pcl", "moco"], default="pcl")
            command.add_argument("--epochs", type=int, default=20)
            command.add_argument("--warmup-epochs", type=int, default=5)
            command.add_argument("--schedule", choices=["cosine", "step"], default="cosine")
            command.add_argument("--eval-folder", help="labelled test images in DATA; asks for kNN and a linear classifier")
            command.add_argument("--eval-per-class", type=int, help="the first N test images of each class")
            command.add_argument("--save", help="write the encoder here, safetensors")
        else:
            command.add_argument("--warmup-steps", type=int, default=3)
            command.add_argument("--steps", type=int, default=5)
            command.add_argument("--step-only", type=int, default=5, help="steps to time without any data loading")
    options = parser.parse_args()
    options.stem = options.stem or ("small" if options.image_size <= 64 else "imagenet")
    options.blur = options.image_size > 64 if options.blur is None else options.blur
    options.negatives = options.negatives or options.queue
    return options


if __name__ == "__main__":
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    {"train": train, "speed": speed}[options.mode](options)

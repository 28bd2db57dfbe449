"""Examples that need torch, lightning or lightly: `make test-examples` has them."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import protonce
import pytest
from conftest import REPOSITORY

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

EXAMPLES = REPOSITORY / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, *arguments, **where):
    package = os.path.dirname(os.path.dirname(protonce.__file__))
    command = [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": package}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **where)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


NARROW = ("--arch", "resnet18", "--image-size", 32, "--batch-size", 7, "--epochs", 2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_simclrs_loss_is_lightlys(seed):
    lightly = pytest.importorskip("lightly.loss")
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, 4 + seed, 8, generator=generator)
    temperature = 0.1 * seed
    expected = lightly.NTXentLoss(temperature)(first, second)
    torch.testing.assert_close(example("simclr").nt_xent(first, second, temperature), expected)


def test_simclr_learns_an_encoder_that_protonce_reads(pictures, tmp_path):
    said = run("simclr", pictures, *NARROW, "--out", tmp_path / "encoder.pth", "--device", "cpu")
    assert [line.split(":")[0] for line in said.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    model = protonce.load(tmp_path / "encoder.pth", head=True)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 128)


def test_lightlys_loop_learns_an_encoder_that_protonce_reads(pictures, tmp_path):
    pytest.importorskip("lightly")
    out = tmp_path / "encoder.pth"
    said = run("lightly_moco", pictures, *NARROW, "--queue", 14, "--out", out, "--device", "cpu")
    assert "epoch 2/2" in said
    assert protonce.load(out)(torch.zeros(2, 3, 32, 32)).shape == (2, 512)


def test_keys_of_a_shuffled_batch_come_back_in_order():
    pytest.importorskip("lightly")
    model = example("lightly_moco").MoCo("resnet18").eval()
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    # At rest both networks are the same.
    torch.testing.assert_close(model.keys(images, 1.0), model(images), atol=1e-5, rtol=1e-4)


# Of its own about what else could be installed.
@pytest.mark.filterwarnings("default")
def test_lightning_learns_an_encoder_epoch_by_epoch(pictures, tmp_path):
    lightning = pytest.importorskip("lightning")
    module = example("lightning_simsiam")
    settings = dict(data=pictures, arch="resnet18", image_size=32, batch_size=7, lr=0.05)
    seen = []

    class Watched(module.SimSiam):
        def training_step(self, batch, number):
            seen.append((self.current_epoch, batch[1].tolist()))
            return super().training_step(batch, number)

    trainer = dict(
        accelerator="cpu", default_root_dir=tmp_path, log_every_n_steps=1, enable_progress_bar=False
    )
    lightning.Trainer(max_epochs=2, **trainer).fit(Watched(**settings))
    [checkpoint] = tmp_path.glob("**/*.ckpt")
    lightning.Trainer(max_epochs=3, **trainer).fit(
        Watched(**settings), ckpt_path=checkpoint, weights_only=False
    )
    loader = protonce.Loader(pictures, 32, 7)
    expected = [(epoch, indices.tolist()) for epoch in range(3) for _, indices in loader]
    assert seen == expected
    run("lightning_simsiam", pictures, *NARROW, "--accelerator", "cpu", "--folder", tmp_path,
        "--out", tmp_path / "encoder.pth")
    assert protonce.load(tmp_path / "encoder.pth")(torch.zeros(2, 3, 32, 32)).shape == (2, 512)


# Detection.

COLOURS = {"aeroplane": (220, 30, 30), "cat": (30, 220, 30), "tvmonitor": (30, 30, 220)}


def write_devkit(folder, seed):
    """A VOCdevkit of grey images with a coloured rectangle or two, its colour being its class."""
    from PIL import Image

    random = np.random.default_rng(seed)
    splits = {2007: {"trainval": 12, "test": 6}, 2012: {"trainval": 12}}
    for year, counts in splits.items():
        root = folder / f"VOC{year}"
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / name).mkdir(parents=True)
        for split, count in counts.items():
            names = [f"{split[:2]}{number:04}" for number in range(count)]
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
            for number, name in enumerate(names):
                height, width = ((96, 128), (128, 96))[number % 2]
                pixels = random.integers(90, 150, (height, width, 1)).repeat(3, 2).astype(np.uint8)
                objects = ""
                for half in range(1 + number % 2):
                    kind = list(COLOURS)[random.integers(len(COLOURS))]
                    side = random.integers(34, 44, 2)
                    left = random.integers(0, width - side[0])
                    top = half * height // 2 + random.integers(0, height // 2 - side[1])
                    pixels[top : top + side[1], left : left + side[0]] = COLOURS[kind]
                    objects += (
                        f"<object><name>{kind}</name><difficult>0</difficult><bndbox>"
                        f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
                        f"<xmax>{left + side[0]}</xmax><ymax>{top + side[1]}</ymax></bndbox></object>"
                    )
                Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
                (root / "Annotations" / f"{name}.xml").write_text(
                    f"<annotation><size><width>{width}</width><height>{height}</height></size>"
                    f"{objects}</annotation>"
                )
    return folder


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    return write_devkit(tmp_path_factory.mktemp("voc") / "VOCdevkit", 0)


@pytest.fixture(scope="module")
def exported(real_program, pictures, tmp_path_factory):
    """A narrow encoder with the stem for large images, as `protonce weights export` hands it on."""
    folder = tmp_path_factory.mktemp("detection")
    environment = pytest.MonkeyPatch()
    environment.setenv("PROTONCE", str(real_program))
    try:
        protonce.pretrain(
            pictures, folder / "run", progress=False, preset="small", arch="resnet18", stem="imagenet",
            base_channels=16, image_size=32, batch_size=4, epochs=1, clusters=[3], warmup_epochs=1,
            queue=16, threads=1, loader_threads=1,
        )
        protonce.program.run(
            ["weights", "export", str(folder / "run"), "--to", "torchvision", "--without-head",
             "--out", str(folder / "encoder.pth")]
        )
    finally:
        environment.undo()
    return folder / "encoder.pth"


def detect(devkit, weights, out, *arguments):
    said = run(
        "detection_voc", devkit, weights, "--out", out, "--sizes", "96,112,128", "--max-size", 192,
        "--batch-size", 4, "--regions", 32, "--warmup", 5, "--workers", 0, "--precise-batches", 6,
        *arguments,
    )
    return said, json.loads((out / "results.json").read_text())


def test_a_detector_learns_from_a_devkit_and_goes_on(devkit, exported, tmp_path):
    shorter = ("--lr", 0.02, "--steps", 60, "--log-every", 10)
    said, _ = detect(devkit, exported, tmp_path, "--iterations", 10, *shorter)
    assert "24 images to learn from, 6 to be tested on" in said and "step 10/10" in said
    said, results = detect(devkit, exported, tmp_path, "--iterations", 70, *shorter)
    assert "goes on after step 10" in said and "step 70/70" in said
    for figures in results.values():
        assert figures["AP50"] > 50 and 0 < figures["AP75"] <= figures["AP50"]


def test_the_network_is_the_export_with_one_batch_norm_more(exported):
    module = example("detection_voc")
    settings = module.parser().parse_args(["devkit", "weights"])
    encoder = protonce.load(exported)
    expected = {name: value.clone() for name, value in encoder.state_dict().items()}
    model = module.faster_rcnn(encoder, encoder.views, settings)
    found = model.state_dict()
    stages = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"]
    for name, value in expected.items():
        stage, _, rest = name.partition(".")
        if stage == "layer4":
            place = f"roi_heads.box_head.0.{rest}"
        else:
            place = f"backbone.body.{stages.index(stage)}.{rest}"
        assert torch.equal(found.pop(place), value), name
    parts = {".".join(name.split(".")[:3]) for name in found}
    assert "roi_heads.box_head.1" in parts
    assert {part.split(".")[0] for part in parts} == {"rpn", "roi_heads"}
    # Everything is trained, batch norm without weight decay.
    assert all(parameter.requires_grad for parameter in model.parameters())
    optimizer, schedule = module.optimizer_of(model, settings)
    others, norms = optimizer.param_groups
    assert (others["weight_decay"], norms["weight_decay"]) == (1e-4, 0)
    assert len(others["params"]) + len(norms["params"]) == len(list(model.parameters()))
    rates = [0.02 * schedule.lr_lambdas[0](step) for step in (0, 50, 100, 17999, 18000, 22000)]
    assert rates == pytest.approx([2e-5, 0.01001, 0.02, 0.02, 2e-3, 2e-4])
    small = protonce.load(exported)
    small.maxpool = torch.nn.Identity()
    with pytest.raises(SystemExit, match="expected --stem imagenet"):
        module.faster_rcnn(small, encoder.views, settings)


def test_both_protocols_say_the_same():
    yaml = pytest.importorskip("yaml")
    settings = example("detection_voc").parser().parse_args(["devkit", "weights"])
    theirs = yaml.safe_load((EXAMPLES / "detection_voc_detectron2.yaml").read_text())
    solver, sizes, model = theirs["SOLVER"], theirs["INPUT"], theirs["MODEL"]
    assert settings.iterations == solver["MAX_ITER"] and settings.steps == solver["STEPS"]
    assert (settings.lr, settings.batch_size) == (solver["BASE_LR"], solver["IMS_PER_BATCH"])
    assert settings.warmup == solver["WARMUP_ITERS"]
    assert settings.sizes == sizes["MIN_SIZE_TRAIN"] and settings.sizes[-1] == sizes["MIN_SIZE_TEST"]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert model["PIXEL_MEAN"] == pytest.approx([255 * value for value in mean])
    assert model["PIXEL_STD"] == pytest.approx([255 * value for value in std])
    assert model["BACKBONE"]["FREEZE_AT"] == 0 and theirs["TEST"]["PRECISE_BN"]["ENABLED"]


def test_boxes_are_read_and_mirrored_with_their_image(devkit):
    module = example("detection_voc")
    dataset = module.VOC(devkit, [(2007, "trainval"), (2012, "trainval")], training=True)
    torch.manual_seed(0)
    mirrored = set()
    for number in range(len(dataset)):
        image, target = dataset[number]
        mirrored.add(bool((target["boxes"] != dataset.items[number][2]["boxes"]).any()))
        for box, label in zip(target["boxes"].int().tolist(), target["labels"].tolist()):
            left, top, right, bottom = box
            middle = image[:, top + 4 : bottom - 4, left + 4 : right - 4].mean((1, 2)) * 255
            colour = COLOURS[module.CLASSES[label - 1]]
            assert (middle - torch.tensor(colour)).abs().max() < 12
    assert mirrored == {True, False}


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_batches_are_the_same_for_any_number_of_processes(devkit, processes):
    module = example("detection_voc")
    dataset = module.VOC(devkit, [(2007, "trainval")], training=True)

    def some(size, rank, first=0):
        return list(module.itertools.islice(module.Batches(dataset, 4, rank, size, first, 0), 9))

    whole = some(1, 0)
    parts = [some(processes, rank) for rank in range(processes)]
    assert [sorted(sum(batch, [])) for batch in zip(*parts)] == [sorted(batch) for batch in whole]
    assert some(1, 0, first=5)[:4] == whole[5:]
    for batch in whole:
        assert len({dataset.items[index][1] for index in batch}) == 1
    with pytest.raises(SystemExit, match="expected a multiple of 3 processes"):
        module.Batches(dataset, 4, 0, 3, 0, 0)


def scene(seed):
    """Objects far from one another, and detections near them, twice, or of nothing."""
    random = np.random.default_rng(seed)
    targets, found = [], []
    for image in range(8):
        boxes = []
        for place in range(random.integers(1, 5)):
            left, top = 100 * place + random.integers(10, 40), random.integers(10, 40)
            boxes.append([left, top, left + random.integers(20, 50), top + random.integers(20, 50)])
        labels = random.integers(1, 4, len(boxes))
        targets.append({
            "boxes": torch.tensor(np.array(boxes), dtype=torch.float32),
            "labels": torch.tensor(labels),
            "difficult": torch.zeros(len(boxes), dtype=torch.bool),
        })
        for box, label in zip(boxes, labels):
            for _ in range(random.integers(0, 3)):
                moved = (np.array(box) + random.uniform(-6, 6, 4)).tolist()
                found.append((image, int(label) - 1, random.random(), moved))
        wrong = [600.0, 10.0, 640.0, 50.0]
        found.append((image, int(random.integers(3)), random.random(), wrong))
    return targets, found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_precision_at_101_levels_is_cocos(seed, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    targets, found = scene(seed)
    annotations = [
        {"id": number, "image_id": image, "category_id": int(label), "iscrowd": 0,
         "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
        for number, (image, label, (left, top, right, bottom)) in enumerate(
            (
                (image, label, box)
                for image, target in enumerate(targets)
                for label, box in zip(target["labels"].tolist(), target["boxes"].tolist())
            ),
            1,
        )
    ]
    truth = coco.COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(len(targets))],
        "categories": [{"id": label} for label in (1, 2, 3)],
        "annotations": annotations,
    }
    truth.createIndex()
    results = truth.loadRes([
        {"image_id": image, "category_id": label + 1, "score": score,
         "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
        for image, label, score, box in found
    ])
    reference = COCOeval(truth, results, "bbox")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    ours = example("detection_voc").evaluate(found, targets)["101 points"]
    assert [ours["AP"], ours["AP50"], ours["AP75"]] == pytest.approx(100 * reference.stats[:3])
    assert 0 < ours["AP75"] < ours["AP50"] < 100


@pytest.mark.parametrize(
    ("judged", "objects", "eleven"),
    [
        # All found, nothing else.
        ([1, 1], 2, 1.0),
        # Half of the objects: levels 0 to 0.5 of recall, six of eleven.
        ([1], 2, 6 / 11),
        # The second is wrong: precision 1 to recall 1/3, 2/3 to 2/3, 3/5 to 1.
        ([1, 0, 1, 0, 1], 3, (4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11),
        # Difficult ones do not count.
        ([-1, 1, -1], 1, 1.0),
        ([], 3, 0.0),
    ],
)
def test_precision_at_the_eleven_levels_of_voc_2007(judged, objects, eleven):
    found = example("detection_voc").average_precision(judged, objects, 11)
    assert found == pytest.approx(eleven)


def test_detections_are_judged_as_by_the_devkit():
    module = example("detection_voc")
    boxes = torch.tensor([[0, 0, 10, 10], [20, 0, 30, 10]], dtype=torch.float64)
    truth = [(boxes, [False, True]), (torch.empty(0, 4, dtype=torch.float64), [])]
    found = [
        (0, 0.5, [0, 0, 10, 9]),
        (0, 0.9, [0, 0, 10, 10]),
        (0, 0.8, [20, 0, 30, 10]),
        (0, 0.7, [20, 0, 30, 10]),
        (1, 0.6, [0, 0, 10, 10]),
        (0, 0.4, [0, 0, 10, 5]),
    ]
    matched = module.matches(found, truth)
    # By score: right, difficult twice, nothing there, the same object again, exactly half of it.
    assert module.judge(matched, 0.5) == [1, -1, -1, 0, 0, 0]
    assert module.judge(matched, 0.4) == [1, -1, -1, 0, 0, 0]
    assert module.judge(module.matches(found[-1:], truth), 0.49) == [1]

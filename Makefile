# make debs            the packages, in build/debs/ (again only if something changed)
# make lint-packages   lintian on them and on the source package
# make reproducible    two builds of this tree have to give the same bytes
# make deps            installs what these need, if it is missing

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
	digest=$$($(PACK) | sha256sum); \
	if [ "$$digest" = "$$(cat $(DEBS)/.built-from 2>/dev/null)" ]; then \
		echo "debs: nothing has changed since they were built"; exit; \
	fi; \
	echo "debs: building the packages, some 15 seconds"; \
	$(call unpack,build/tree/drbd-offsite); \
	(cd build/tree/drbd-offsite && dpkg-buildpackage -us -uc -b -nc) >build/debs.log 2>&1 || \
		{ cat build/debs.log; exit 1; }; \
	rm -rf $(DEBS) && mkdir -p $(DEBS); \
	mv build/tree/*.deb build/tree/*.buildinfo build/tree/*.changes $(DEBS)/; \
	echo "$$digest" >$(DEBS)/.built-from; \
	rm -rf build/tree; \
	cd $(DEBS) && ls -l *.deb

.PHONY: lint-packages
lint-packages: debs
	@set -e; \
	$(call unpack,build/source/drbd-offsite); \
	(cd build/source/drbd-offsite && dpkg-buildpackage -us -uc -S -nc) >build/source.log 2>&1 || \
		{ cat build/source.log; exit 1; }; \
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
			>"build/reproducible.log" 2>&1 || { cat build/reproducible.log; exit 1; }; \
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

CHECK_PACKAGES := debconf-utils lintian man-db mypy openssh-server python3-venv shellcheck systemd udev

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
